"""vLLM's metric names, so that dashboards and queries work with either engine.

Unlike vLLM, a request that its client abandoned counts as finished_reason="abort" here (vllm#31503).
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

FINISHED = ("stop", "length", "abort", "error")
_TTFT = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
    2560,
)
_ITL = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)


class EngineMetrics:
    """Counters and histograms of one engine, all present from the start."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self._label = model_name

        def make(kind: Any, name: str, text: str, **extra: Any) -> Any:
            metric = kind(f"vllm:{name}", text, ["model_name", "engine"], registry=self.registry, **extra)
            return metric.labels(model_name, "0")

        self.prompt_tokens = make(Counter, "prompt_tokens", "Prompt tokens of requests that ended.")
        self.generation_tokens = make(Counter, "generation_tokens", "Tokens generated.")
        self.first_token = make(Histogram, "time_to_first_token_seconds", "Arrival to first token.", buckets=_TTFT)
        self.inter_token = make(Histogram, "inter_token_latency_seconds", "Between two tokens.", buckets=_ITL)
        self.latency = make(Histogram, "e2e_request_latency_seconds", "Arrival to last token.", buckets=_LATENCY)
        self.queue = make(Histogram, "request_queue_time_seconds", "Waiting for a row.", buckets=_LATENCY)
        labels = ["model_name", "engine", "finished_reason"]
        self._finished = Counter("vllm:request_success", "Requests by how they ended.", labels, registry=self.registry)
        for reason in FINISHED:
            self._finished.labels(model_name, "0", reason)

    def finished(self, reason: str) -> None:
        self._finished.labels(self._label, "0", reason).inc()

    def watch(self, running: Callable[[], list[str]], waiting: Callable[[], list[str]], max_loras: int) -> None:
        """Adds the gauges; the functions give the adapter names ("" for the base) of running and waiting requests."""
        self.registry.register(_Load(self._label, running, waiting, max_loras))


class _Load(Collector):
    """What is true at the moment of the scrape."""

    def __init__(
        self, model_name: str, running: Callable[[], list[str]], waiting: Callable[[], list[str]], max_loras: int
    ) -> None:
        self._model_name, self._running, self._waiting, self._max_loras = model_name, running, waiting, max_loras

    def collect(self) -> Iterable[Metric]:
        running, waiting = self._running(), self._waiting()
        for name, value in (("running", len(running)), ("waiting", len(waiting))):
            gauge = GaugeMetricFamily(f"vllm:num_requests_{name}", f"Requests {name}.", labels=["model_name", "engine"])
            gauge.add_metric([self._model_name, "0"], value)
            yield gauge
        info = GaugeMetricFamily(
            "vllm:lora_requests_info",
            "Adapters in use; the value is the wall clock, as in vLLM.",
            labels=["max_lora", "running_lora_adapters", "waiting_lora_adapters"],
        )
        names = [",".join(sorted(set(filter(None, group)))) for group in (running, waiting)]
        info.add_metric([str(self._max_loras), *names], time.time())
        yield info
