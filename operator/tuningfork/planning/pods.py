"""What every pod that the operator creates has in common: restricted security, the store's credentials, the administrator's fragment.

Both planners build their pods here, so that "restricted" is decided once and holds for trainers, engines and routers alike. The
administrator's fragment (`Settings.pods`) wins over ours where both name the same variable, because he knows the cluster. Rejected:
a pod template merged by strategic merge patch; it would need the API's merge keys here and hides what a pod looks like.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tuningfork.api import Settings
from tuningfork.planning.plan import Manifest

USER_ID = 1000
"""The uid and gid of our images; volumes are owned by it through fsGroup."""

UNREACHABLE_SECONDS = 60
"""How long a pod stays on a node that stopped answering; Kubernetes' default of 300 s is five minutes of an idle job."""

S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
"""What the Secret of `S3Settings.secret_name` must hold."""

TMP_MOUNT = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - the pod's own emptyDir
TMP_VOLUME: Manifest = {"name": "tmp", "emptyDir": {}}


def owner_reference(parent: Manifest) -> Manifest:
    """Makes a child of ``parent``: deleted with it, and its events concern it."""
    return {
        "apiVersion": parent["apiVersion"],
        "kind": parent["kind"],
        "name": parent["metadata"]["name"],
        "uid": parent["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def s3_env(settings: Settings) -> list[Manifest]:
    """Where the object store is; its credentials come from `s3_credentials`.

    boto3's checksums stay at their default (on). A server that refuses them gets AWS_REQUEST_CHECKSUM_CALCULATION=when_required
    through the administrator's fragment. boto3 reads AWS_DEFAULT_REGION, everything else AWS_REGION.
    """
    env = {"AWS_REGION": settings.s3.region, "AWS_DEFAULT_REGION": settings.s3.region}
    if settings.s3.endpoint:
        env["AWS_ENDPOINT_URL"] = settings.s3.endpoint
    return env_list(env)


def s3_credentials(settings: Settings) -> Manifest:
    """An envFrom entry. Not optional: a missing Secret then shows as CreateContainerConfigError and not as a denied request."""
    return {"secretRef": {"name": settings.s3.secret_name, "optional": False}}


def env_list(env: Mapping[str, str]) -> list[Manifest]:
    """Variables as a container lists them."""
    return [{"name": name, "value": value} for name, value in env.items()]


def build_container(
    settings: Settings,
    name: str,
    image: str,
    command: Sequence[str],
    *,
    env: Iterable[Manifest] = (),
    mounts: Iterable[Manifest] = (),
    resources: Manifest | None = None,
    s3: bool = False,
    more: Manifest | None = None,
) -> Manifest:
    """A restricted container; ``s3`` gives it the store's address and credentials, ``more`` adds ports, probes and the like."""
    env = [*s3_env(settings), *env] if s3 else list(env)
    container: Manifest = {
        "name": name,
        "image": image,
        "imagePullPolicy": settings.images.pull_policy,
        "command": list(command),
        "env": _by_name([*env, *settings.pods.env]),
        "resources": resources or {},
        "volumeMounts": [TMP_MOUNT, *mounts, *settings.pods.volume_mounts],
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    if s3:
        container["envFrom"] = [s3_credentials(settings)]
    return container | (more or {})


def build_pod_template(
    settings: Settings,
    containers: Sequence[Manifest],
    *,
    labels: Mapping[str, str],
    volumes: Iterable[Manifest] = (),
    restart_policy: str = "Always",
    grace_seconds: int = 30,
    token: bool = False,
    affinity: Manifest | None = None,
    annotations: Mapping[str, str] | None = None,
    more: Manifest | None = None,
) -> Manifest:
    """A PodTemplateSpec; ``token`` mounts the service account's token, ``more`` is merged over the pod's spec."""
    spec: Manifest = {
        "restartPolicy": restart_policy,
        "terminationGracePeriodSeconds": grace_seconds,
        "automountServiceAccountToken": token,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": list(containers),
        "volumes": [TMP_VOLUME, *volumes, *settings.pods.volumes],
        "tolerations": [*_node_loss(), *settings.pods.tolerations],
    }
    if settings.pods.node_selector:
        spec["nodeSelector"] = dict(settings.pods.node_selector)
    if affinity:
        spec["affinity"] = affinity
    metadata: Manifest = {"labels": dict(labels)}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"metadata": metadata, "spec": spec | (more or {})}


def _node_loss() -> list[Manifest]:
    return [
        {
            "key": f"node.kubernetes.io/{state}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": UNREACHABLE_SECONDS,
        }
        for state in ("not-ready", "unreachable")
    ]


def _by_name(env: Iterable[Manifest]) -> list[Manifest]:
    """One entry a name, the last wins: server-side apply refuses repeats."""
    named: dict[str, Any] = {}
    for entry in env:
        named[entry["name"]] = entry
    return list(named.values())
