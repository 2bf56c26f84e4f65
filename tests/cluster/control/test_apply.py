"""What the API server makes of our children is no difference, and what we take back is one."""

import copy
from typing import Any

import pytest

from support.toy import JOBS
from support.toy_world import World
from tuningfork.control.compare import needs_apply
from tuningfork.control.controller import Resource
from tuningfork.control.store import trimmed
from tuningfork.planning.plan import Manifest
from tuningfork.providers.errors import ConflictError, ProviderError
from tuningfork.providers.kubernetes import Kubernetes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]

DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments")
SERVICES = Resource("v1", "Service", "services")
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings")
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")

LABELS = {"tuningfork.dev/rollout": "a", "tuningfork.dev/component": "engine"}

POD: Manifest = {
    "metadata": {"labels": LABELS},
    "spec": {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": {"zone": "a", "disk": "fast"},
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "engine",
                "image": "engine:1",
                "args": ["--port", "8000"],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "EMPTY", "value": ""},
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
                "envFrom": [{"secretRef": {"name": "s3", "optional": False}}],
                "ports": [{"name": "http", "containerPort": 8000}, {"containerPort": 8001}],
                "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}, "limits": {"memory": "2048Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 2},
                "volumeMounts": [{"name": "tables", "mountPath": "/etc/tables", "readOnly": True}],
            },
        ],
        "volumes": [
            {"name": "tables", "configMap": {"name": "a", "items": [{"key": "routes.json", "path": "routes.json"}]}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1024Mi"}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "x"}}]}},
        ],
    },
}
BODIES: dict[Resource, Manifest] = {
    DEPLOYMENTS: {"spec": {"replicas": 0, "selector": {"matchLabels": LABELS}, "template": POD}},
    SERVICES: {
        "spec": {"selector": LABELS, "clusterIP": "None", "ports": [{"name": "http", "port": 80, "targetPort": 8000}]}
    },
    BINDINGS: {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "ml"}],
    },
    CONFIG_MAPS: {"data": {"routes.json": "{}", "adapters.json": ""}},
}


def build(resource: Resource, world: World) -> Manifest:
    metadata = {"name": "a", "namespace": world.namespace, "labels": dict(LABELS)}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata} | copy.deepcopy(
        BODIES[resource]
    )


@pytest.mark.parametrize("resource", BODIES, ids=lambda resource: resource.kind)
async def test_what_was_applied_needs_no_second_apply(resource: Resource, world: World, kube: Kubernetes) -> None:
    desired = build(resource, world)
    await kube.apply(resource, desired)
    live = trimmed(await kube.get(resource, world.namespace, "a"))
    assert live["metadata"]["managedFields"], "our own fields are known"
    assert not needs_apply(desired, live)
    again = await kube.apply(resource, desired)
    assert again["metadata"].get("generation") == live["metadata"].get("generation"), (
        "and none would have changed anything"
    )


def spec(deployment: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return found


def engine(deployment: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = spec(deployment)["containers"][0]
    return found


@pytest.mark.parametrize(
    ("resource", "change"),
    [
        pytest.param(DEPLOYMENTS, lambda d: engine(d)["env"].pop(0), id="a variable less"),
        pytest.param(DEPLOYMENTS, lambda d: engine(d)["args"].pop(), id="an argument less"),
        pytest.param(DEPLOYMENTS, lambda d: engine(d).pop("envFrom"), id="a list less"),
        pytest.param(DEPLOYMENTS, lambda d: engine(d)["ports"].pop(), id="a port less"),
        pytest.param(DEPLOYMENTS, lambda d: engine(d)["resources"]["limits"].pop("memory"), id="a limit less"),
        pytest.param(DEPLOYMENTS, lambda d: engine(d).pop("readinessProbe"), id="a probe less"),
        pytest.param(DEPLOYMENTS, lambda d: spec(d)["nodeSelector"].pop("disk"), id="a node label less"),
        pytest.param(DEPLOYMENTS, lambda d: spec(d)["tolerations"].pop(), id="a toleration less"),
        pytest.param(DEPLOYMENTS, lambda d: spec(d)["volumes"].pop(), id="a volume less"),
        pytest.param(DEPLOYMENTS, lambda d: engine(d).update(image="engine:2"), id="another image"),
        pytest.param(SERVICES, lambda d: d["spec"]["ports"][0].update(targetPort=8001), id="another port"),
        pytest.param(BINDINGS, lambda d: d["subjects"].clear(), id="a subject less"),
        pytest.param(CONFIG_MAPS, lambda d: d["data"].pop("routes.json"), id="a key less"),
        pytest.param(CONFIG_MAPS, lambda d: d["metadata"]["labels"].pop("tuningfork.dev/component"), id="a label less"),
    ],
)
async def test_what_we_change_or_take_back_is_applied_once(
    resource: Resource, change: Any, world: World, kube: Kubernetes
) -> None:
    desired = build(resource, world)
    live = trimmed(await kube.apply(resource, desired))
    change(desired)
    assert needs_apply(desired, live)
    changed = trimmed(await kube.apply(resource, desired))
    assert changed["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"], "it was a real difference"
    assert not needs_apply(desired, changed)


async def test_what_others_add_stays_and_is_no_difference(world: World, kube: Kubernetes) -> None:
    desired = build(DEPLOYMENTS, world)
    await kube.apply(DEPLOYMENTS, desired)
    sidecar = [*POD["spec"]["containers"], {"name": "injected", "image": "mesh:1"}]
    patch = {"spec": {"template": {"spec": {"containers": sidecar}}}, "metadata": {"annotations": {"by": "another"}}}
    live = trimmed(await kube.patch(DEPLOYMENTS, world.namespace, "a", patch))
    assert [container["name"] for container in spec(live)["containers"]] == ["engine", "injected"]
    assert not needs_apply(desired, live)


async def test_a_misspelt_field_is_refused_and_not_dropped(world: World, kube: Kubernetes) -> None:
    desired = build(DEPLOYMENTS, world)
    spec(desired)["nodeSelektor"] = {}
    with pytest.raises(ProviderError, match="nodeSelektor"):
        await kube.apply(DEPLOYMENTS, desired)


async def test_a_delete_spares_a_successor_and_a_status_that_is_old_is_refused(world: World, kube: Kubernetes) -> None:
    await world.create("a")
    job = await kube.get(JOBS, world.namespace, "a")
    with pytest.raises(ConflictError):
        await kube.delete(JOBS, world.namespace, "a", uid="another")
    first = await kube.replace_status(JOBS, job | {"status": {"phase": "Pending"}})
    with pytest.raises(ConflictError):
        await kube.replace_status(JOBS, job | {"status": {"phase": "Failed"}})
    second = await kube.replace_status(JOBS, first | {"status": {"message": "no phase"}})
    assert "spec" in second
    assert second["status"]["message"] == "no phase"
