"""The router's series. All of a table's exist at 0 before the first request, so that the first bad one counts; series of versions
that left the table are deleted a few minutes later, when Prometheus has seen their last values. Never a user or a prompt as label."""

from enum import StrEnum
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tuningfork_serving.router.feedback import RATINGS

RETIRED_SECONDS = 300.0
"""How long the series of a version stay after it left the table."""
LABELS = ("namespace", "rollout", "track", "slice", "model_version")
DURATIONS = (
    (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
)  # fmt: skip
FIRST_TOKEN = (
    (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560)
)  # fmt: skip
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
OVERHEAD = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1)


class Outcome(StrEnum):
    """How a request ended; decided when its stream ends."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    UPSTREAM_ERROR = "upstream_error"
    STREAM_ERROR = "stream_error"
    CLIENT_ABORT = "client_abort"
    TIMEOUT = "timeout"
    REJECTED = "rejected"


class Labels(NamedTuple):
    """One lane's labels, in the order of LABELS."""

    namespace: str
    rollout: str
    track: str
    slice: str
    model_version: str


class RouterMetrics:
    """Everything that the router exports."""

    def __init__(self, namespace: str, rollout: str) -> None:
        self.registry = CollectorRegistry()
        self._place = (namespace, rollout)
        self._retired: dict[Labels, float | None] = {}
        """Known lanes; the time since which the table does not name them."""

        def make(kind: Any, name: str, text: str, *labels: str, **extra: Any) -> Any:
            return kind(f"tuningfork_router_{name}", text, [*LABELS, *labels], registry=self.registry, **extra)

        self._requests = make(Counter, "requests", "Requests by how they ended.", "outcome")
        self._feedback = make(Counter, "feedback", "Rated answers.", "rating")
        self._tokens = make(Counter, "tokens", "Tokens of prompts (input) and answers (output).", "direction")
        self._retries = make(Counter, "retries", "Requests sent to another engine before the first byte.")
        self._duration = make(Histogram, "request_duration_seconds", "Arrival to last byte.", buckets=DURATIONS)
        self._first = make(Histogram, "time_to_first_token_seconds", "Arrival to first event.", buckets=FIRST_TOKEN)
        self._per_token = make(Histogram, "time_per_output_token_seconds", "Between tokens.", buckets=PER_TOKEN)
        self._overhead = make(Histogram, "overhead_seconds", "Time that the router itself took.", buckets=OVERHEAD)
        self._generation = Gauge(
            "tuningfork_router_route_generation", "Route table in force.", LABELS[:2], registry=self.registry
        )
        self._weight = Gauge(
            "tuningfork_router_weight_ratio",
            "Share of the users, 0 to 1, leases considered.",
            [*LABELS[:2], "track", "model_version"],
            registry=self.registry,
        )
        self._generation.labels(*self._place).set(0)

    def labels(self, track: str, slice_: str, version: str) -> Labels:
        return Labels(*self._place, str(track), str(slice_), version)

    def declare(self, lanes: set[Labels], now: float) -> None:
        """Makes the series of these lanes, at 0 where they are new; the others count as retired from now."""
        for lane in lanes:
            self._touch(lane, None)
        for lane, since in self._retired.items():
            if lane not in lanes and since is None:
                self._retired[lane] = now

    def sweep(self, now: float) -> None:
        """Deletes what was retired long enough ago."""
        for lane in [lane for lane, since in self._retired.items() if since and now - since >= RETIRED_SECONDS]:
            del self._retired[lane]
            for metric in (self._retries, self._duration, self._first, self._per_token, self._overhead):
                metric.remove(*lane)
            for metric, values in self._enumerated():
                for value in values:
                    metric.remove(*lane, value)

    def show_routes(self, generation: int, weights: dict[tuple[str, str], int]) -> None:
        """The table in force: per cent by (version, track)."""
        self._generation.labels(*self._place).set(generation)
        self._weight.clear()
        for (version, track), share in weights.items():
            self._weight.labels(*self._place, track, version).set(share / 100)

    def count(self, lane: Labels, outcome: Outcome, duration: float, overhead: float, now: float) -> None:
        """A request that ended."""
        self._touch(lane, now)
        self._requests.labels(*lane, outcome).inc()
        self._duration.labels(*lane).observe(duration)
        self._overhead.labels(*lane).observe(overhead)

    def count_unassigned(self, outcome: Outcome) -> None:
        """A request that no lane answers for, such as one for an unknown model."""
        self._requests.labels(*self._place, "", "", "", outcome).inc()

    def count_tokens(self, lane: Labels, prompt: int, completion: int) -> None:
        self._tokens.labels(*lane, "input").inc(prompt)
        self._tokens.labels(*lane, "output").inc(completion)

    def count_retry(self, lane: Labels) -> None:
        self._retries.labels(*lane).inc()

    def observe_stream(self, lane: Labels, first: float, per_token: float | None) -> None:
        self._first.labels(*lane).observe(first)
        if per_token is not None:
            self._per_token.labels(*lane).observe(per_token)

    def rate(self, lane: Labels, rating: str, now: float) -> None:
        self._touch(lane, now)
        self._feedback.labels(*lane, rating).inc()

    def _touch(self, lane: Labels, retired: float | None) -> None:
        """Knows the lane from here on; a lane outside the table (``retired``) goes again by itself."""
        known = lane in self._retired
        if not known or retired is None or self._retired[lane] is not None:
            self._retired[lane] = retired
        if known:
            return
        for metric in (self._retries, self._duration, self._first, self._per_token, self._overhead):
            metric.labels(*lane)
        for metric, values in self._enumerated():
            for value in values:
                metric.labels(*lane, value)

    def _enumerated(self) -> tuple[tuple[Any, tuple[str, ...]], ...]:
        return (
            (self._requests, tuple(Outcome)),
            (self._feedback, RATINGS),
            (self._tokens, ("input", "output")),
        )
