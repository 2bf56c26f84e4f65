"""Rollout in the runtime: what is observed for its plan. Every decision is in `tuningfork.planning.rollout`."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, Protocol, TypeVar

from pydantic import ValidationError

from tuningfork.api import API_VERSION, ApiModel, ModelVersion, Rollout, Settings, seconds
from tuningfork.api._meta import LABEL_COMPONENT, LABEL_ROLLOUT
from tuningfork.api.rollout import AnalysisMetric, RolloutPhase
from tuningfork.control import clock
from tuningfork.control.controller import Key, Outside, Resource, Store, Watched
from tuningfork.delivery.queries import Measurement, Sample, Subject, build_queries, read_answers, window_seconds
from tuningfork.planning.plan import Manifest, Plan
from tuningfork.planning.rollout import (
    EnginePod,
    RolloutObserved,
    RouterPod,
    build_subjects,
    plan_rollout,
    watched_metrics,
)
from tuningfork.providers.errors import ProviderError
from tuningfork.providers.prometheus import Prometheus
from tuningfork.providers.serving import read_loaders, read_routers

ROLLOUT: Final = Resource(API_VERSION, "Rollout", "rollouts")
MODELVERSION: Final = Resource(API_VERSION, "ModelVersion", "modelversions")
CHILDREN: Final = (
    Resource("v1", "ConfigMap", "configmaps"),
    Resource("v1", "ServiceAccount", "serviceaccounts"),
    Resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    Resource("v1", "Service", "services"),
    Resource("apps/v1", "Deployment", "deployments"),
)
POD: Final = Resource("v1", "Pod", "pods")

BUSY_SECONDS: Final = 1.0
"""Age of what pods said, at most, while something is under way."""
STEADY_SECONDS: Final = 10.0

M = TypeVar("M", bound=ApiModel)
S = TypeVar("S", bound=ApiModel)


class Metrics(Protocol):
    """Where measurements come from."""

    async def query(self, expression: str, at: datetime) -> list[Sample]: ...


class RolloutController:
    """Observes and plans; see `tuningfork.control.controller.Controller`."""

    resource = ROLLOUT

    def __init__(
        self,
        settings: Settings,
        store: Store,
        outside: Outside,
        metrics: Metrics | None = None,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._settings = settings
        self._store = store
        self._outside = outside
        self._metrics = metrics or Prometheus(settings.prometheus)
        self._now = now
        self.watched = (
            *(Watched(resource, LABEL_ROLLOUT, _by_label) for resource in (*CHILDREN, POD)),
            Watched(MODELVERSION, None, self._that_name),
            Watched(ROLLOUT, None, self._that_share_the_model),
        )

    def observe(self, parent: Manifest) -> RolloutObserved:
        rollout = Rollout.model_validate(parent)
        namespace = rollout.metadata.namespace
        engines, engines_asked = self._pods(rollout, "engine", read_loaders)
        routers, routers_asked = self._pods(rollout, "router", read_routers)
        return RolloutObserved(
            raw=parent,
            rollout=rollout,
            settings=self._settings,
            versions=self._versions(rollout),
            siblings=tuple(self._siblings(rollout)),
            children=self._children(parent),
            engines=tuple(EnginePod(*pod) for pod in engines),
            routers=tuple(RouterPod(*pod) for pod in routers),
            asked=engines_asked and routers_asked,
            measurements=dict(self._measurements(rollout, Key(ROLLOUT.kind, namespace, rollout.metadata.name))),
        )

    def plan(self, observed: RolloutObserved, now: datetime) -> Plan:
        return plan_rollout(observed, now)

    def _versions(self, rollout: Rollout) -> dict[str, ModelVersion]:
        raws = {name: self._store.get("ModelVersion", rollout.metadata.namespace, name) for name in _named(rollout)}
        parsed = {name: _parsed(ModelVersion, raw) for name, raw in raws.items() if raw}
        return {name: version for name, version in parsed.items() if version}

    def _siblings(self, rollout: Rollout) -> Iterable[Rollout]:
        for raw in self._store.list("Rollout", rollout.metadata.namespace):
            sibling = _parsed(Rollout, {**raw, "status": None})
            if sibling and sibling.metadata.uid != rollout.metadata.uid and sibling.spec.model == rollout.spec.model:
                yield sibling

    def _children(self, parent: Manifest) -> dict[tuple[str, str], Manifest]:
        metadata = parent["metadata"]
        label = {LABEL_ROLLOUT: metadata["name"]}
        found = [c for r in CHILDREN for c in self._store.list(r.kind, metadata["namespace"], label)]
        return {(c["kind"], c["metadata"]["name"]): c for c in found if _is_owned(c, metadata["uid"])}

    def _pods(
        self,
        rollout: Rollout,
        component: str,
        read: Callable[[Mapping[str, str]], Awaitable[dict[str, S | None]]],
    ) -> tuple[list[tuple[str, bool, S | None]], bool]:
        """The component's living pods by name, readiness and what they said last; and whether they were asked at all."""
        meta = rollout.metadata
        labels = {LABEL_ROLLOUT: meta.name, LABEL_COMPONENT: component}
        pods = [pod for pod in self._store.list("Pod", meta.namespace, labels) if _is_alive(pod)]
        addresses = {_uid(pod): pod["status"]["podIP"] for pod in pods if pod.get("status", {}).get("podIP")}
        reading = addresses and self._outside.latest(
            (component, meta.uid),
            Key(ROLLOUT.kind, meta.namespace, meta.name),
            lambda: read(addresses),
            max_age=BUSY_SECONDS if _is_busy(rollout) else STEADY_SECONDS,
        )
        said = (reading.value or {}) if reading else {}
        return [(_name(p), _is_ready(p), said.get(_uid(p))) for p in pods], not addresses or reading is not None

    def _measurements(self, rollout: Rollout, owner: Key) -> Iterable[tuple[tuple[str, str], Measurement]]:
        """One reading a subject and metric; another walk or step is another reading."""
        interval = seconds(rollout.spec.analysis.interval)
        for subject in build_subjects(rollout, rollout.status) if rollout.status else ():
            for metric in watched_metrics(rollout, subject):
                reading = self._outside.latest(
                    ("metric", rollout.metadata.uid, subject, metric),
                    owner,
                    lambda metric=metric, subject=subject: self._measure(metric, subject),  # type: ignore[misc]
                    max_age=interval,
                    timeout=4 * self._settings.prometheus.timeout_seconds,
                )
                if reading and reading.value:
                    yield (subject.version, metric.name), reading.value
                elif reading:
                    yield (subject.version, metric.name), Measurement(reading.at, error=str(reading.error))

    async def _measure(self, metric: AnalysisMetric, subject: Subject) -> Measurement:
        """A provider's error is a measurement too: it has its own policy, and no backoff."""
        at = self._now()
        queries = build_queries(metric, subject, window_seconds(metric, subject, at))
        try:
            answers = [await self._metrics.query(query, at) for query in queries]
        except ProviderError as error:
            return Measurement(at, error=str(error))
        return read_answers(metric, subject, answers, at)

    def _that_name(self, version: Manifest) -> list[Key]:
        metadata = version["metadata"]
        rollouts = self._store.list("Rollout", metadata["namespace"])
        return [_key(r) for r in rollouts if metadata["name"] in _tracks(r)]

    def _that_share_the_model(self, rollout: Manifest) -> list[Key]:
        """When the older one goes, the younger one may begin."""
        others = self._store.list("Rollout", rollout["metadata"]["namespace"])
        return [_key(r) for r in others if r["spec"].get("model") == rollout["spec"].get("model")]


def _by_label(child: Manifest) -> list[Key]:
    metadata = child["metadata"]
    name = metadata.get("labels", {}).get(LABEL_ROLLOUT)
    return [Key(ROLLOUT.kind, metadata["namespace"], name)] if name else []


def _key(rollout: Manifest) -> Key:
    return Key(ROLLOUT.kind, rollout["metadata"]["namespace"], _name(rollout))


def _tracks(rollout: Manifest) -> set[str]:
    return {track["version"] for track in rollout["spec"].get("tracks", {}).values()}


def _named(rollout: Rollout) -> set[str]:
    tracks = rollout.spec.tracks
    return {track.version for track in (tracks.production, tracks.staging, tracks.canary) if track}


def _parsed(model: type[M], raw: Manifest) -> M | None:
    """None where another version of the API wrote it: for us it is not there."""
    try:
        return model.model_validate(raw)
    except ValidationError:
        return None


def _is_busy(rollout: Rollout) -> bool:
    status = rollout.status
    return status is None or not status.acknowledged or status.phase is RolloutPhase.PROGRESSING


def _is_owned(child: Manifest, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in child["metadata"].get("ownerReferences", ()))


def _is_alive(pod: Manifest) -> bool:
    ended = pod.get("status", {}).get("phase") in ("Failed", "Succeeded")
    return not ended and "deletionTimestamp" not in pod["metadata"]


def _is_ready(pod: Manifest) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _name(obj: Manifest) -> str:
    return str(obj["metadata"]["name"])


def _uid(obj: Manifest) -> str:
    return str(obj["metadata"]["uid"])
