"""The chart on a real API server: it is accepted, its pods are restricted, and its operator may do what it must and no more.

The roles are bound under names of this test's own, so that it can run beside an installed TuningFork.
"""

import copy
import json
import uuid
from collections.abc import Iterator

import pytest

from chart import EVERYTHING, Manifest, render
from devcluster.console import ClusterError
from devcluster.kube import Kubectl
from support.api_server import cluster_kubectl, namespace

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def kubectl() -> Kubectl:
    return cluster_kubectl()


@pytest.fixture(scope="module")
def restricted(kubectl: Kubectl) -> Iterator[str]:
    """A namespace that admits restricted pods alone."""
    with namespace(kubectl, "chart", **{"pod-security.kubernetes.io/enforce": "restricted"}) as name:
        yield name


@pytest.fixture(scope="module")
def operator(kubectl: Kubectl, restricted: str) -> Iterator[str]:
    """The operator's account with the chart's roles; its user name."""
    suffix = uuid.uuid4().hex[:8]
    wanted = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
    objects = [o for o in render() if o["kind"] in wanted and o["metadata"]["name"] != "tuningfork-serving"]
    for manifest in objects:
        _rename(manifest, restricted, suffix)
    kubectl.create(*objects)
    yield f"system:serviceaccount:{restricted}:tuningfork"
    for manifest in objects:
        if manifest["kind"].startswith("Cluster"):
            kubectl("delete", manifest["kind"], manifest["metadata"]["name"])


def _rename(manifest: Manifest, into: str, suffix: str) -> None:
    metadata = manifest["metadata"]
    if "namespace" in metadata:
        metadata["namespace"] = into
    if manifest["kind"].startswith("Cluster"):
        metadata["name"] += f"-{suffix}"
    # An aggregated role would be in force for everybody.
    metadata["labels"] = {key: value for key, value in metadata["labels"].items() if "aggregate-to" not in key}
    for subject in manifest.get("subjects", ()):
        subject["namespace"] = into
    if manifest.get("roleRef", {}).get("kind") == "ClusterRole":
        manifest["roleRef"]["name"] += f"-{suffix}"


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default values", "everything on"])
def test_the_server_accepts_every_object(kubectl: Kubectl, restricted: str, values: Manifest) -> None:
    objects = [o for o in render(values) if o["kind"] != "PrometheusRule"]
    for manifest in objects:
        if "namespace" in manifest["metadata"]:
            manifest["metadata"]["namespace"] = restricted
    listed = {"apiVersion": "v1", "kind": "List", "items": objects}
    done = kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-",
        stdin=json.dumps(listed),
    )  # fmt: skip
    assert len(done.split()) == len(objects)


def _pod() -> Manifest:
    deployment = next(o for o in render() if o["kind"] == "Deployment")
    spec = copy.deepcopy(deployment["spec"]["template"]["spec"])
    spec["serviceAccountName"] = "default"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": spec}


def test_the_operators_pod_is_admitted_where_only_restricted_ones_are(kubectl: Kubectl, restricted: str) -> None:
    created = kubectl("create", "--dry-run=server", "-n", restricted, "-o", "name", "-f", "-", stdin=json.dumps(_pod()))
    assert created == "pod/operator\n"


def test_a_pod_that_is_not_restricted_would_not_be(kubectl: Kubectl, restricted: str) -> None:
    pod = _pod()
    del pod["spec"]["containers"][0]["securityContext"]
    with pytest.raises(ClusterError, match='violates PodSecurity "restricted'):
        kubectl("create", "--dry-run=server", "-n", restricted, "-f", "-", stdin=json.dumps(pod))


MAY = """
watch finetunejobs.tuningfork.dev
patch rollouts.tuningfork.dev --subresource=status
create modelversions.tuningfork.dev
create jobs.batch
patch deployments.apps
create serviceaccounts
create rolebindings.rbac.authorization.k8s.io
bind clusterroles.rbac.authorization.k8s.io/tuningfork-serving
create tokenreviews.authentication.k8s.io
list nodes
create events
"""
MAY_NOT = """
patch finetunejobs.tuningfork.dev
update rollouts.tuningfork.dev
update modelversions.tuningfork.dev
delete modelversions.tuningfork.dev
get secrets
list secrets
create pods
delete pods
create pods --subresource=exec
get pods --subresource=log
bind clusterroles.rbac.authorization.k8s.io/cluster-admin
create clusterrolebindings.rbac.authorization.k8s.io
escalate clusterroles.rbac.authorization.k8s.io
impersonate users
patch nodes
"""
MAY_AT_HOME = """
get leases.coordination.k8s.io/tuningfork-operator
create leases.coordination.k8s.io
update secrets/tuningfork-tls
create secrets
"""
MAY_NOT_AT_HOME = """
update leases.coordination.k8s.io/another
get secrets/tuningfork-s3
list secrets
"""


def table(*rows: tuple[str, str, str]) -> list[tuple[str, str, str]]:
    return [(question, where, answer) for text, where, answer in rows for question in text.strip().splitlines()]


@pytest.mark.parametrize(
    ("question", "where", "answer"),
    table(
        (MAY, "default", "yes"),
        (MAY_NOT, "default", "no"),
        (MAY_AT_HOME, "home", "yes"),
        (MAY_NOT_AT_HOME, "home", "no"),
    ),
)
def test_the_operator_may(
    kubectl: Kubectl, restricted: str, operator: str, question: str, where: str, answer: str
) -> None:
    place = restricted if where == "home" else "default"
    done = kubectl.attempt("auth", "can-i", *question.split(), f"--as={operator}", f"--namespace={place}")
    assert done.stdout.strip() == answer, done.stderr


@pytest.mark.parametrize(("role", "allowed"), [("tuningfork-serving", True), ("cluster-admin", False)])
def test_the_operator_binds_the_serving_role_and_no_other(
    kubectl: Kubectl, restricted: str, operator: str, role: str, allowed: bool
) -> None:
    """Asked of the escalation check itself, which `can-i` does not run."""
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "support-serving", "namespace": restricted},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "support-serving", "namespace": restricted}],
    }
    arguments = ("create", "--dry-run=server", f"--as={operator}", "-o", "name", "-f", "-")
    if allowed:
        assert (
            kubectl(*arguments, stdin=json.dumps(binding)) == "rolebinding.rbac.authorization.k8s.io/support-serving\n"
        )
    else:
        with pytest.raises(ClusterError, match="attempting to grant RBAC permissions not currently held"):
            kubectl(*arguments, stdin=json.dumps(binding))
