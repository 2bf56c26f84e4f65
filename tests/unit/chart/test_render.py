"""What the chart installs: a restricted operator with least privilege."""

from collections.abc import Iterator

import pytest

from chart import EVERYTHING, NAMESPACE, Manifest, render
from tuningfork.api.crds import KINDS, build_crd

DEFAULT = render()
ALL = render(EVERYTHING)
KIND_NAMES = {kind.plural for kind in KINDS}
WRITES = {"create", "update", "patch", "delete", "deletecollection", "*"}


def find(objects: list[Manifest], kind: str, name: str) -> Manifest:
    return next(o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))


def pod(objects: list[Manifest]) -> Manifest:
    spec: Manifest = find(objects, "Deployment", "tuningfork")["spec"]["template"]["spec"]
    return spec


def container(objects: list[Manifest]) -> Manifest:
    only: Manifest
    (only,) = pod(objects)["containers"]
    return only


def grants(role: Manifest) -> Iterator[tuple[str, str, frozenset[str], frozenset[str]]]:
    """(group, resource, verbs, names) of every rule."""
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                yield group, resource, frozenset(rule["verbs"]), frozenset(rule.get("resourceNames", ()))


CLUSTER_ROLE = find(DEFAULT, "ClusterRole", "tuningfork-operator")
ROLE = find(DEFAULT, "Role", "tuningfork-operator")


def test_the_crds_are_the_generated_ones() -> None:
    crds = [o for o in render(crds=True) if o["kind"] == "CustomResourceDefinition"]
    assert sorted(crds, key=str) == sorted((build_crd(kind) for kind in KINDS), key=str)


def test_the_operator_never_writes_a_spec_of_its_own_kinds() -> None:
    written = {
        (resource, *verbs & WRITES)
        for group, resource, verbs, _ in grants(CLUSTER_ROLE)
        if group == "tuningfork.dev" and "/" not in resource and verbs & WRITES
    }
    assert written == {("modelversions", "create")}


def test_nothing_is_granted_by_wildcard() -> None:
    roles = [o for o in ALL if o["kind"] in {"ClusterRole", "Role"}]
    assert [g for role in roles for g in grants(role) if "*" in {g[0], g[1], *g[2]}] == []


def test_secrets_are_read_by_name_and_in_the_own_namespace_alone() -> None:
    assert [g for g in grants(CLUSTER_ROLE) if g[1] == "secrets"] == []
    readable = {names for _, resource, verbs, names in grants(ROLE) if resource == "secrets" and verbs - {"create"}}
    assert readable == {frozenset({"tuningfork-tls"})}


def test_only_the_serving_role_can_be_bound() -> None:
    bound = [(resource, names) for _, resource, verbs, names in grants(CLUSTER_ROLE) if verbs & {"bind", "escalate"}]
    assert bound == [("clusterroles", frozenset({"tuningfork-serving"}))]


def test_serving_pods_may_only_read_config_maps() -> None:
    role = find(DEFAULT, "ClusterRole", "tuningfork-serving")
    assert list(grants(role)) == [("", "configmaps", frozenset({"get", "list", "watch"}), frozenset())]


def test_lease_and_certificate_are_those_of_the_settings() -> None:
    role = find(render({"settings": {"leaseName": "a", "serviceName": "b"}}), "Role", "tuningfork-operator")
    named = {(g[1], *g[3]) for g in grants(role) if "update" in g[2]}
    assert named == {("leases", "a"), ("secrets", "b-tls")}


def test_users_may_change_the_kinds_and_never_their_status() -> None:
    view, edit = (find(DEFAULT, "ClusterRole", f"tuningfork-{name}") for name in ("view", "edit"))
    assert {g[1] for g in grants(view)} == {g[1] for g in grants(edit)} == KIND_NAMES
    aggregated = [
        {label.rsplit("-", 1)[1] for label in role["metadata"]["labels"] if "aggregate-to" in label}
        for role in (view, edit)
    ]
    assert aggregated == [{"view", "edit", "admin"}, {"edit", "admin"}]


@pytest.mark.parametrize("objects", [DEFAULT, ALL], ids=["default values", "everything on"])
def test_the_operator_is_a_restricted_pod(objects: list[Manifest]) -> None:
    assert pod(objects)["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(objects)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_two_replicas_stay_apart_and_are_not_drained_together() -> None:
    deployment = find(DEFAULT, "Deployment", "tuningfork")
    selector = deployment["spec"]["selector"]["matchLabels"]
    (term,) = pod(DEFAULT)["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    budget = find(DEFAULT, "PodDisruptionBudget", "tuningfork")["spec"]
    assert deployment["spec"]["replicas"] == 2
    assert term["podAffinityTerm"]["labelSelector"]["matchLabels"] == selector
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": selector}}


def test_the_service_leads_to_the_pods_ports() -> None:
    service = find(DEFAULT, "Service", "tuningfork")["spec"]
    ports = {port["name"]: port["containerPort"] for port in container(DEFAULT)["ports"]}
    assert {port["port"]: ports[port["targetPort"]] for port in service["ports"]} == {9443: 9443, 8080: 8080}


def test_the_pod_fragment_reaches_the_operators_own_pods() -> None:
    added = EVERYTHING["operator"]["pod"]
    assert added["volumes"][0] in pod(ALL)["volumes"]
    assert added["volumeMounts"][0] in container(ALL)["volumeMounts"]
    assert added["env"][0] in container(ALL)["env"]
    assert (pod(ALL)["nodeSelector"], pod(ALL)["tolerations"]) == (added["nodeSelector"], added["tolerations"])


def test_credentials_come_from_the_secret_that_the_chart_or_somebody_else_makes() -> None:
    refs = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container(DEFAULT)["env"] if e["name"].startswith("AWS")}
    assert refs == {
        key: {"name": "tuningfork-s3", "key": key, "optional": True}
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    }
    assert [o for o in DEFAULT if o["kind"] == "Secret"] == []
    assert find(ALL, "Secret", "tuningfork-s3")["stringData"] == {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }


def test_a_change_of_the_settings_restarts_the_operator() -> None:
    def annotations(objects: list[Manifest]) -> Manifest:
        found: Manifest = find(objects, "Deployment", "tuningfork")["spec"]["template"]["metadata"]["annotations"]
        return found

    assert annotations(render({"settings": {"workers": 3}})) != annotations(DEFAULT)
    assert annotations(render({"operator": {"replicas": 3}})) == annotations(DEFAULT)


def test_everything_is_in_the_releases_namespace() -> None:
    cluster_wide = {"ClusterRole", "ClusterRoleBinding"}
    assert {o["metadata"]["namespace"] for o in ALL if o["kind"] not in cluster_wide} == {NAMESPACE}


@pytest.mark.parametrize(
    ("toggle", "kind", "name"),
    [
        ("dashboard", "ConfigMap", "tuningfork-dashboard"),
        ("argocd", "ConfigMap", "tuningfork-argocd"),
        ("prometheusRule", "PrometheusRule", "tuningfork"),
        ("userRoles", "ClusterRole", "tuningfork-view"),
    ],
)
def test_a_part_can_be_left_out(toggle: str, kind: str, name: str) -> None:
    def has(enabled: bool) -> bool:
        objects = render({toggle: {"enabled": enabled}})
        return any((o["kind"], o["metadata"]["name"]) == (kind, name) for o in objects)

    assert (has(True), has(False)) == (True, False)
