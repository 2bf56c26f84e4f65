"""The loader's own series: which adapter is where, and how long a load takes (vLLM tells neither)."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Gauge, Histogram

_DURATIONS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)


class LoaderMetrics:
    """Series of one pod; Prometheus adds the pod's name."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.duration = Histogram(
            "tuningfork_adapter_load_duration_seconds",
            "Download, verification and load of one adapter.",
            buckets=_DURATIONS,
            registry=self.registry,
        )
        self._loaded = Gauge(
            "tuningfork_adapter_loaded",
            "Whether the engine holds the adapter: 1 or 0.",
            ["adapter"],
            registry=self.registry,
        )

    def show(self, held: Iterable[str], wanted: Iterable[str]) -> None:
        """Sets the gauge for everything that is held or wanted, and forgets the rest."""
        held = set(held)
        self._loaded.clear()
        for name in held | set(wanted):
            self._loaded.labels(name).set(name in held)
