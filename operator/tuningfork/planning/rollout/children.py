"""The objects that serve: engines with their loaders, routers, and what they need to find each other and the tables.

Adapters come at run time, so an engine's pod template never changes with versions. It does not change with the operator's own version
or settings either: the template is kept in an annotation of the Deployment and rendered anew only when the spec asks for another engine
(or somebody removes the annotation, which is how an administrator brings a new image to engines that run). Routers hold
no state and restart without a lost request, so they follow the settings at once.
"""

import hashlib
import json
from typing import Any, Final

from tuningfork.api import GROUP
from tuningfork.api._meta import LABEL_COMPONENT, LABEL_ROLLOUT
from tuningfork.api.routes import (
    ADAPTERS_KEY,
    ENGINE_PORT,
    LOADER_PORT,
    ROUTER_PORT,
    ROUTES_KEY,
    AdapterTable,
    RouteTable,
    engine_service,
    serving_config_map,
)
from tuningfork.planning.plan import Manifest
from tuningfork.planning.pods import build_container, build_pod_template, owner_reference
from tuningfork.planning.rollout.observed import RolloutObserved

TEMPLATE_ANNOTATION: Final = f"{GROUP}/pod-template"
"""On the engine Deployment: the template as it was rendered for the present spec."""
TEMPLATE_HASH_ANNOTATION: Final = f"{GROUP}/spec-hash"
"""Of the part of the spec that the template was rendered for."""

CLUSTER_ROLE: Final = "tuningfork-serving"
"""Comes with the chart: get, list and watch ConfigMaps."""

MAX_LORAS: Final = 8
"""Adapters in one batch: stable, candidate, previous, two pins, and those that are leaving."""
MAX_LORA_RANK: Final = 64
"""vLLM reserves memory for this rank in every slot; 512 would cost gigabytes on a large base."""

SERVICE_PORT: Final = 80
ROUTER_GRACE_SECONDS: Final = 30
"""Time for open streams when a router leaves."""
DEREGISTER_SECONDS: Final = 3
"""Between the end of a router's pod and the moment when no proxy sends it requests any more."""

_MODELS = "/models"
_TABLES = "/etc/tuningfork"


def router_name(rollout: str) -> str:
    """Name of the router Deployment."""
    return f"{rollout}-router"


def serving_labels(rollout: str, component: str) -> dict[str, str]:
    """Labels of a component's pods, and their selector."""
    return {LABEL_ROLLOUT: rollout, LABEL_COMPONENT: component}


def build_children(observed: RolloutObserved, routes: RouteTable, adapters: AdapterTable) -> tuple[Manifest, ...]:
    """All of them, tables first: who starts finds what to load."""
    tables = {ROUTES_KEY: _canonical(routes.dump()), ADAPTERS_KEY: _canonical(adapters.dump())}
    return (
        _child(observed, "v1", "ConfigMap", serving_config_map(observed.name), {"data": tables}),
        *_access(observed),
        _engine_service(observed),
        _engine_deployment(observed),
        _router_service(observed),
        _router_deployment(observed),
    )


def _canonical(value: Manifest) -> str:
    return json.dumps(value, sort_keys=True)


def _child(
    observed: RolloutObserved,
    api_version: str,
    kind: str,
    name: str,
    body: Manifest,
    annotations: dict[str, str] | None = None,
) -> Manifest:
    component = "router" if name in (observed.name, router_name(observed.name)) else "engine"
    metadata: Manifest = {
        "name": name,
        "namespace": observed.namespace,
        "labels": serving_labels(observed.name, component),
        "ownerReferences": [owner_reference(observed.raw)],
    }
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}


def _access(observed: RolloutObserved) -> tuple[Manifest, Manifest]:
    """Loader and router watch the ConfigMap of their own namespace, nothing else."""
    name = serving_config_map(observed.name)
    binding = {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": CLUSTER_ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": observed.namespace}],
    }
    account = {"automountServiceAccountToken": False}
    return (
        _child(observed, "v1", "ServiceAccount", name, account),
        _child(observed, "rbac.authorization.k8s.io/v1", "RoleBinding", name, binding),
    )


def _engine_service(observed: RolloutObserved) -> Manifest:
    """Headless, unready pods too: the router asks each pod's loader which adapters it can be sent."""
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": serving_labels(observed.name, "engine"),
        "ports": [_service_port("http", ENGINE_PORT, ENGINE_PORT), _service_port("loader", LOADER_PORT, LOADER_PORT)],
    }
    return _child(observed, "v1", "Service", engine_service(observed.name), {"spec": spec})


def _router_service(observed: RolloutObserved) -> Manifest:
    spec = {
        "selector": serving_labels(observed.name, "router"),
        "ports": [_service_port("http", SERVICE_PORT, ROUTER_PORT)],
    }
    return _child(observed, "v1", "Service", observed.name, {"spec": spec})


def _service_port(name: str, port: int, target: int) -> Manifest:
    return {"name": name, "port": port, "targetPort": target, "protocol": "TCP"}


def _engine_deployment(observed: RolloutObserved) -> Manifest:
    serving = observed.rollout.spec.serving
    asked = {"topology": serving.topology, "base": serving.base.dump(), "engine": serving.engine.dump()}
    hash_ = hashlib.sha256(_canonical(asked).encode()).hexdigest()[:10]
    template = _kept_template(observed, hash_) or _engine_template(observed)
    annotations = {TEMPLATE_HASH_ANNOTATION: hash_, TEMPLATE_ANNOTATION: _canonical(template)}
    name = engine_service(observed.name)
    return _deployment(observed, name, "engine", template, serving.replicas, annotations)


def _kept_template(observed: RolloutObserved, hash_: str) -> Manifest | None:
    deployment = observed.children.get(("Deployment", engine_service(observed.name)))
    annotations = deployment["metadata"].get("annotations", {}) if deployment else {}
    if annotations.get(TEMPLATE_HASH_ANNOTATION) != hash_ or TEMPLATE_ANNOTATION not in annotations:
        return None
    try:
        template = json.loads(annotations[TEMPLATE_ANNOTATION])
    except ValueError:
        return None
    return template if isinstance(template, dict) else None


def _deployment(
    observed: RolloutObserved,
    name: str,
    component: str,
    template: Manifest,
    replicas: int | None,
    annotations: dict[str, str] | None = None,
) -> Manifest:
    """A change never takes capacity away before its successor is ready."""
    spec: Manifest = {
        "selector": {"matchLabels": serving_labels(observed.name, component)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": template,
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return _child(observed, "apps/v1", "Deployment", name, {"spec": spec}, annotations)


def _engine_template(observed: RolloutObserved) -> Manifest:
    settings = observed.settings
    base = observed.rollout.spec.serving.base.uri
    models = {"name": "models", "mountPath": _MODELS}
    fetch = build_container(
        settings,
        "fetch",
        settings.images.serving,
        ["tuningfork-loader", "fetch", "--uri", base, "--to", f"{_MODELS}/base"],
        mounts=[models],
        s3=True,
    )
    return build_pod_template(
        settings,
        [_engine_container(observed, models), _loader_container(observed, models)],
        labels=serving_labels(observed.name, "engine"),
        volumes=[{"name": "models", "emptyDir": {}}, _tables_volume(observed)],
        token=True,
        annotations=_scraped(ENGINE_PORT),
        more={"serviceAccountName": serving_config_map(observed.name), "initContainers": [fetch]},
    )


def _engine_container(observed: RolloutObserved, models: Manifest) -> Manifest:
    settings = observed.settings
    flags: dict[str, Any] = {
        "--model": f"{_MODELS}/base",
        "--served-model-name": "base",
        "--host": "0.0.0.0",  # noqa: S104 - the pod's own network
        "--port": ENGINE_PORT,
        "--max-loras": MAX_LORAS,
        "--max-lora-rank": MAX_LORA_RANK,
    }
    command = ["tuningfork-engine", "--enable-lora"]
    for flag, value in flags.items():
        if flag not in settings.engine_args:
            command += [flag, str(value)]
    health = {"httpGet": {"path": "/health", "port": ENGINE_PORT}, "timeoutSeconds": 10}
    return build_container(
        settings,
        "engine",
        settings.images.serving,
        [*command, *settings.engine_args],
        env=[{"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"}],
        mounts=[models],
        resources=settings.engine_resources,
        more={
            "ports": [_port("http", ENGINE_PORT)],
            "readinessProbe": health | {"periodSeconds": 5, "failureThreshold": 3},
            **_probes("/health", ENGINE_PORT, start=1800),
        },
    )


def _loader_container(observed: RolloutObserved, models: Manifest) -> Manifest:
    """Ready only when the stable adapters are loaded, so the pod is."""
    settings = observed.settings
    command = [
        *("tuningfork-loader", "run"),
        *_table_flags(observed),
        *("--engine", f"http://127.0.0.1:{ENGINE_PORT}"),
        *("--adapters-dir", f"{_MODELS}/adapters"),
    ]
    return build_container(
        settings,
        "loader",
        settings.images.serving,
        command,
        mounts=[models, _tables_mount()],
        s3=True,
        more={
            "ports": [_port("loader", LOADER_PORT)],
            **_probes("/healthz", LOADER_PORT),
            "readinessProbe": {
                "httpGet": {"path": "/ready", "port": LOADER_PORT},
                "periodSeconds": 2,
                "timeoutSeconds": 5,
            },
        },
    )


def _router_deployment(observed: RolloutObserved) -> Manifest:
    settings = observed.settings
    container = build_container(
        settings,
        "router",
        settings.images.serving,
        ["tuningfork-router", *_table_flags(observed)],
        mounts=[_tables_mount()],
        more={
            "ports": [_port("http", ROUTER_PORT)],
            "readinessProbe": {
                "httpGet": {"path": "/readyz", "port": ROUTER_PORT},
                "periodSeconds": 2,
                "timeoutSeconds": 5,
            },
            **_probes("/healthz", ROUTER_PORT),
            "lifecycle": {"preStop": {"sleep": {"seconds": DEREGISTER_SECONDS}}},
        },
    )
    template = build_pod_template(
        settings,
        [container],
        labels=serving_labels(observed.name, "router"),
        volumes=[_tables_volume(observed)],
        token=True,
        grace_seconds=ROUTER_GRACE_SECONDS,
        annotations=_scraped(ROUTER_PORT),
        more={"serviceAccountName": serving_config_map(observed.name)},
    )
    replicas = observed.rollout.spec.traffic.replicas
    return _deployment(observed, router_name(observed.name), "router", template, replicas)


def _probes(path: str, port: int, *, start: int = 300) -> Manifest:
    """Restarts what hangs for a minute; whoever starts gets ``start`` seconds, because a crowded node is no reason to begin again."""
    probe = {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 10}
    return {
        "startupProbe": probe | {"periodSeconds": 2, "failureThreshold": start // 2},
        "livenessProbe": probe | {"periodSeconds": 10, "failureThreshold": 6},
    }


def _table_flags(observed: RolloutObserved) -> list[str]:
    """The mounted copy serves a start without the API server; the watch is what brings changes within a second."""
    return ["--namespace", observed.namespace, "--rollout", observed.name, "--config-dir", _TABLES]


def _tables_volume(observed: RolloutObserved) -> Manifest:
    return {"name": "tables", "configMap": {"name": serving_config_map(observed.name)}}


def _tables_mount() -> Manifest:
    return {"name": "tables", "mountPath": _TABLES, "readOnly": True}


def _port(name: str, port: int) -> Manifest:
    return {"name": name, "containerPort": port, "protocol": "TCP"}


def _scraped(port: int) -> dict[str, str]:
    return {"prometheus.io/scrape": "true", "prometheus.io/port": str(port), "prometheus.io/path": "/metrics"}
