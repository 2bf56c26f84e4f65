"""A world in which a Rollout lives: engines load, routers acknowledge, users rate, Prometheus counts. Time is simulated.

It carries out plans as the runtime does (children, then status), keeps what was written, and checks after every pass what must never
happen. A scenario reads: make a world, change something, let time pass, look.
"""

import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tuningfork.api import ModelVersion, Rollout, RolloutStatus, Settings, parse_time, seconds
from tuningfork.api._meta import ANNOTATION_COMMANDS
from tuningfork.api.modelversion import adapter_name
from tuningfork.api.rollout import AnalysisMetric, MetricTemplate, Slice
from tuningfork.api.routes import (
    ADAPTERS_KEY,
    ROUTES_KEY,
    AdapterState,
    AdapterTable,
    LoaderState,
    RouterState,
    RouteTable,
)
from tuningfork.delivery.evidence import Counts
from tuningfork.delivery.queries import Measurement, Subject, window_seconds
from tuningfork.delivery.split import shares
from tuningfork.planning.plan import Manifest, Plan
from tuningfork.planning.rollout import (
    EnginePod,
    RolloutObserved,
    RouterPod,
    build_subjects,
    plan_rollout,
    watched_metrics,
)

START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
SETTINGS = Settings.model_validate({"images": {"trainer": "trainer:1", "serving": "serving:1"}})
BASE = "s3://models/base/tiny"

FEEDBACK = {
    "name": "feedback",
    "template": "NegativeFeedbackRate",
    "compareTo": "Production",
    "maxIncrease": 0.1,
    "minSamples": 15,
}
ERRORS = {"name": "errors", "template": "ErrorRate", "max": 0.2, "minSamples": 10, "failureLimit": {"consecutive": 2}}


def make_version(
    name: str, *, base: str = BASE, verified: str | None = "True", digest: str | None = None
) -> ModelVersion:
    """A ModelVersion; ``verified`` None has no condition yet."""
    conditions = [
        {
            "type": "Verified",
            "status": verified,
            "reason": "Verified" if verified == "True" else "DigestMismatch",
            "lastTransitionTime": "2026-01-31T11:00:00Z",
        }
    ]
    return ModelVersion.model_validate(
        {
            "metadata": {"name": name, "namespace": "ml"},
            "spec": {
                "model": "support",
                "artifact": {"uri": f"s3://models/{name}", "digest": digest or digest_of(name)},
                "base": {"uri": base},
            },
            "status": {"conditions": conditions if verified else []},
        }
    )


def digest_of(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def adapter_of(name: str) -> str:
    return adapter_name(name, digest_of(name))


def make_spec(version: str, **changes: Any) -> Manifest:
    """Three steps of 20/30/40 %, 20 s each, feedback compared and errors limited, as in the demo."""
    spec: Manifest = {
        "model": "support",
        "serving": {"base": {"uri": BASE}, "replicas": 2},
        "tracks": {"production": {"version": version}},
        "strategy": {
            "steps": [
                {"track": "canary", "weight": 20, "hold": "20s"},
                {"track": "staging", "weight": 30, "hold": "20s"},
                {"track": "production", "weight": 40, "hold": "20s"},
            ]
        },
        "analysis": {"interval": "5s", "metrics": [FEEDBACK, ERRORS]},
    }
    return spec | changes


@dataclass
class SimEngine:
    """Loads what is declared a moment after it is told."""

    name: str
    ready: bool = True
    loaded: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    answers: bool = True

    def obey(self, table: AdapterTable) -> None:
        self.loaded = {a.name for a in table.adapters if a.name not in self.broken}

    def observe(self) -> EnginePod:
        if not self.answers:
            return EnginePod(self.name, self.ready)
        states = {name: AdapterState(state="Loaded") for name in self.loaded}
        states |= {
            name: AdapterState(state="Failed", message="sha256 of adapter_model.safetensors") for name in self.broken
        }
        return EnginePod(self.name, self.ready, LoaderState(engine_up=True, adapters=states))


@dataclass
class Traffic:
    """What users do with a version."""

    bad: float = 0.1
    failing: float = 0.0
    latency: float = 0.3


@dataclass
class Hit:
    """Requests of one second in one slice."""

    at: datetime
    version: str
    slice: str
    requests: float
    failed: float
    down: float


class World:
    """One Rollout and everything around it."""

    def __init__(self, version: str = "support-v1", *, rps: float = 3.0, **changes: Any) -> None:
        self.now = START
        self.rps = rps
        self.metadata: Manifest = {
            "name": "support",
            "namespace": "ml",
            "uid": "uid-1",
            "generation": 1,
            "creationTimestamp": "2026-01-31T11:59:00Z",
            "annotations": {},
        }
        self.spec = make_spec(version, **changes)
        self.status: Manifest | None = None
        self.children: dict[tuple[str, str], Manifest] = {}
        self.versions = {f"support-v{n}": make_version(f"support-v{n}") for n in (1, 2, 3, 4)}
        self.siblings: tuple[Rollout, ...] = ()
        self.engines = [SimEngine("engine-a"), SimEngine("engine-b")]
        self.router_generations = [0]
        self.routers_follow = True
        self.prometheus_answers = True
        self.traffic: dict[str, Traffic] = {}
        self.hits: list[Hit] = []
        self.measured: dict[tuple[Any, ...], Measurement] = {}
        self.writes = 0
        self.splits: list[dict[str, int]] = []
        """Every split that routers were told, in order."""
        self.plans: list[Plan] = []
        self.events: list[tuple[str, str]] = []
        self._nonce = 0
        self.die_before: Callable[[str], bool] = lambda write: False

    # What a person does

    def edit(self, change: Callable[[Manifest], Any]) -> "World":
        """Another spec, as kubectl edit makes it."""
        self.spec = deepcopy(self.spec)
        change(self.spec)
        self.metadata = self.metadata | {"generation": self.metadata["generation"] + 1}
        return self

    def ask_for(self, version: str) -> "World":
        return self.edit(lambda spec: spec["tracks"]["production"].update(version=version))

    def command(self, verb: str, version: str, step: int = 0) -> "World":
        self._nonce += 1
        annotations = self.metadata["annotations"] | {ANNOTATION_COMMANDS[verb]: f"{version}/{step}/{self._nonce}"}
        self.metadata = self.metadata | {"annotations": annotations}
        return self

    # What time does

    def run(self, duration: float, *, tick: float = 1.0) -> "World":
        for _ in range(round(duration / tick)):
            self.tick(tick)
        return self

    def run_until(self, condition: Callable[["World"], bool], within: float = 600) -> "World":
        end = self.now + timedelta(seconds=within)
        while self.now < end:
            self.tick()
            if condition(self):
                return self
        raise AssertionError(f"not within {within} s: {self.describe()}")

    def tick(self, seconds_: float = 1.0) -> None:
        self.now += timedelta(seconds=seconds_)
        self._load_and_acknowledge()
        self._send_requests(seconds_)
        self.reconcile()

    def reconcile(self) -> Plan:
        """Passes until nothing is to be done at once, as the queue does."""
        for _ in range(20):
            observed = self.observe()
            plan = plan_rollout(observed, self.now)
            self.plans.append(plan)
            try:
                changed = self._execute(plan)
            except Killed:
                self.measured.clear()
                self.die_before = lambda write: False
                continue
            self.check(observed)
            if not changed:
                return plan
        raise AssertionError(f"does not converge: {self.describe()}")

    def observe(self) -> RolloutObserved:
        raw = {"apiVersion": "tuningfork.dev/v1alpha1", "kind": "Rollout", "metadata": self.metadata, "spec": self.spec}
        if self.status:
            raw = raw | {"status": self.status}
        rollout = Rollout.model_validate(raw)
        return RolloutObserved(
            raw=raw,
            rollout=rollout,
            settings=SETTINGS,
            versions=self.versions,
            siblings=self.siblings,
            children=self.children,
            engines=tuple(e.observe() for e in self.engines),
            routers=tuple(
                RouterPod(f"router-{i}", True, RouterState(generation=g)) for i, g in enumerate(self.router_generations)
            ),
            measurements=self._measure(rollout),
        )

    # What is seen

    @property
    def seen(self) -> RolloutStatus:
        return RolloutStatus.model_validate(self.status or {})

    @property
    def table(self) -> RouteTable | None:
        data = self.children.get(("ConfigMap", "support-serving"), {}).get("data")
        return RouteTable.model_validate_json(data[ROUTES_KEY]) if data else None

    @property
    def adapters(self) -> AdapterTable | None:
        data = self.children.get(("ConfigMap", "support-serving"), {}).get("data")
        return AdapterTable.model_validate_json(data[ADAPTERS_KEY]) if data else None

    @property
    def shares(self) -> dict[str, int]:
        return shares(self.table) if self.table else {}

    def condition(self, type_: str) -> tuple[str, str]:
        found = next(c for c in self.seen.conditions if c.type == type_)
        return str(found.status), found.reason

    def describe(self) -> str:
        why = [sentence for plan in self.plans[-30:] for sentence in plan.why]
        return f"{self.now:%H:%M:%S} {self.seen.phase} {self.seen.message!r} {self.shares} because {why}"

    def check(self, observed: RolloutObserved) -> None:
        """What must hold after every pass."""
        table = self.table
        if table is None or table.stable is None:
            return
        assert sum(self.shares.values()) == 100, self.describe()
        assert all(weight >= 0 for weight in self.shares.values()), self.describe()
        before = shares(observed.table) if observed.table else {}
        for target in [*table.pins, *([table.candidate] if table.candidate else [])]:
            if target.weight and self.shares[target.version] > before.get(target.version, 0):
                assert all(e.observe().holds(target.adapter) for e in self.engines), self.describe()

    # How it works

    def _load_and_acknowledge(self) -> None:
        if self.adapters:
            for engine in self.engines:
                engine.obey(self.adapters)
        if self.table and self.routers_follow:
            self.router_generations = [self.table.generation for _ in self.router_generations]

    def _send_requests(self, duration: float) -> None:
        table = self.table
        if table is None or table.stable is None or not self.router_generations:
            return
        lapsed = table.candidate and table.candidate.valid_until and self.now > parse_time(table.candidate.valid_until)
        parts = [(p.version, Slice.PIN, p.weight) for p in table.pins]
        if table.candidate and not lapsed:
            parts.append((table.candidate.version, Slice.CANDIDATE, table.candidate.weight))
            parts.append((table.stable.version, Slice.BASELINE, table.candidate.baseline_weight))
        parts.append((table.stable.version, Slice.STABLE, 100 - sum(weight for *_, weight in parts)))
        for version, slice_, weight in parts:
            users = self.traffic.get(version, Traffic())
            n = self.rps * duration * weight / 100
            self.hits.append(Hit(self.now, version, slice_, n, n * users.failing, n * users.bad))

    def _measure(self, rollout: Rollout) -> dict[tuple[str, str], Measurement]:
        """As the controller does: one reading a metric, kept for one interval; the first comes after the pass that asked for it."""
        out: dict[tuple[str, str], Measurement] = {}
        status = rollout.status
        interval = seconds(rollout.spec.analysis.interval)
        for subject in build_subjects(rollout, status) if status else []:
            for metric in watched_metrics(rollout, subject):
                key = (subject, metric)
                old = self.measured.get(key)
                if old is None or self.now >= old.at + timedelta(seconds=interval):
                    self.measured[key] = self._reading(metric, subject)
                if self.measured[key].at < self.now or old:
                    out[subject.version, metric.name] = self.measured[key]
        return out

    def _reading(self, metric: AnalysisMetric, subject: Subject) -> Measurement:
        if not self.prometheus_answers:
            return Measurement(self.now, error="http://prometheus: no answer within 5 s")
        since = self.now - timedelta(seconds=window_seconds(metric, subject, self.now))

        def counted(version: str | None, slices: tuple[Slice, ...]) -> Counts:
            hits = [h for h in self.hits if h.at > since and h.version == version and h.slice in slices]
            feedback = metric.template is MetricTemplate.NEGATIVE_FEEDBACK_RATE
            return Counts(sum(h.down if feedback else h.failed for h in hits), sum(h.requests for h in hits))

        own = counted(subject.version, subject.slices)
        if metric.template is MetricTemplate.LATENCY_P95:
            users = self.traffic.get(subject.version, Traffic())
            return Measurement(self.now, users.latency if own.samples else None, own.samples)
        baseline = counted(subject.baseline_version, subject.baseline_slices) if metric.compare_to else None
        return Measurement(self.now, own.rate, own.samples, own, baseline)

    def _execute(self, plan: Plan) -> bool:
        changed = False
        for child in plan.apply:
            key = (child["kind"], child["metadata"]["name"])
            if self.children.get(key) != child:
                self._write(f"{key[0]} {key[1]}")
                self.children[key] = json.loads(json.dumps(child))
                changed = True
                if self.shares and self.splits[-1:] != [self.shares]:
                    self.splits.append(self.shares)
        if plan.status is not None and plan.status != self.status:
            self._write("status")
            self.status = json.loads(json.dumps(plan.status))
            changed = True
            self.events += [(event.reason, event.message) for event in plan.events]
        return changed

    def _write(self, what: str) -> None:
        if self.die_before(what):
            raise Killed(what)
        self.writes += 1


class Killed(Exception):  # noqa: N818 - not an error
    """The operator dies here."""


def serving(version: str = "support-v1", **changes: Any) -> World:
    """A world in which that version is stable and nothing is under way."""
    world = World(version, **changes)
    return world.run_until(lambda w: w.seen.phase == "Healthy", within=60)
