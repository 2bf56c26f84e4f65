"""What the operator tells Prometheus about itself.

An object and not module globals, so that two runtimes in one process (tests, benchmarks) do not count into each other.
"""

from collections import Counter as Tally
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from tuningfork.control.store import MemoryStore

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""A converged reconcile takes well below a millisecond, one that writes some tens of them; 30 s is a request's timeout."""


class Metrics:
    """Names and labels are an interface: the chart's dashboard and alerts query them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "tuningfork_reconciles_total", "Reconciles by kind and result.", ["kind", "result"], registry=self.registry
        )
        self.durations = Histogram(
            "tuningfork_reconcile_duration_seconds",
            "Seconds a reconcile took.",
            ["kind"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.depth = Gauge("tuningfork_queue_depth", "Keys that wait for a worker.", registry=self.registry)
        self.retries = Counter(
            "tuningfork_queue_retries_total", "Keys that came back after an error.", registry=self.registry
        )
        self.requests = Counter(
            "tuningfork_api_requests_total",
            "Requests to the Kubernetes API; code 'error' means that no answer came.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.leader = Gauge("tuningfork_leader", "1 on the replica that reconciles.", registry=self.registry)
        self.outside_reads = Counter(
            "tuningfork_outside_reads_total",
            "Reads from S3, Prometheus and pods beside the queue.",
            ["result"],
            registry=self.registry,
        )

    def count_request(self, verb: str, resource: str, code: str) -> None:
        self.requests.labels(verb, resource, code).inc()

    def count_read(self, result: str) -> None:
        self.outside_reads.labels(result).inc()

    def watch_objects(self, store: MemoryStore, kinds: Iterable[str]) -> None:
        """Adds tuningfork_objects{kind,phase} and the progress of each job, read from the store when it is asked for."""
        self.registry.register(_Objects(store, tuple(kinds)))
        self.registry.register(_Progress(store))

    def exposition(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)


class _Objects:
    def __init__(self, store: MemoryStore, kinds: tuple[str, ...]) -> None:
        self._store = store
        self._kinds = kinds

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("tuningfork_objects", "Objects by kind and phase.", labels=["kind", "phase"])
        for kind in self._kinds:
            phases = Tally(_phase(obj.get("status") or {}) for obj in self._store.list(kind))
            for phase, count in sorted(phases.items()):
                family.add_metric([kind, phase], count)
        yield family


class _Progress:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def collect(self) -> Iterator[GaugeMetricFamily]:
        labels = ["namespace", "job"]
        ratio = GaugeMetricFamily("tuningfork_job_progress_ratio", "Optimizer steps done of all.", labels=labels)
        loss = GaugeMetricFamily("tuningfork_job_loss", "Training loss of the last logged step, nats.", labels=labels)
        for job in self._store.list("FineTuneJob"):
            name = [job["metadata"]["namespace"], job["metadata"]["name"]]
            progress = (job.get("status") or {}).get("progress") or {}
            if progress.get("totalSteps"):
                ratio.add_metric(name, progress.get("step", 0) / progress["totalSteps"])
            if "loss" in progress:
                loss.add_metric(name, progress["loss"])
        yield from (ratio, loss)


def _phase(status: dict[str, object]) -> str:
    """The status' own phase; a kind without one is as its Ready condition says."""
    if isinstance(phase := status.get("phase"), str):
        return phase
    conditions = status.get("conditions")
    ready = [c for c in conditions if c.get("type") == "Ready"] if isinstance(conditions, list) else []
    return str(ready[0].get("reason", "Unknown")) if ready else "Unknown"
