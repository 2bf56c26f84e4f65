"""What an analysis asks Prometheus, and what it makes of the answers; pure on both ends, so the provider only carries strings.

A template that compares asks for candidate and production in one query: both counts then come from the same instant and the same
window, which two queries cannot promise. Counts come from ``increase``, which survives restarts of a router; its extrapolation adds
less than one scrape interval of traffic to both sides alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil, isfinite
from typing import Final, NamedTuple

from tuningfork.api.rollout import AnalysisMetric, MetricTemplate, Slice
from tuningfork.delivery.evidence import Counts

REQUESTS: Final = "tuningfork_router_requests_total"
FEEDBACK: Final = "tuningfork_router_feedback_total"
DURATION: Final = "tuningfork_router_request_duration_seconds"

FAILED_OUTCOMES: Final = frozenset({"upstream_error", "stream_error", "timeout"})
"""What the serving side failed."""
UNCOUNTED_OUTCOMES: Final = frozenset({"client_error", "client_abort", "rejected"})
"""What the client caused, or what never reached a version."""

SHORTEST_WINDOW: Final = 10
"""Seconds. Two scrapes of 5 s; an increase needs two samples."""

LONGEST_WALK: Final = 7 * 24 * 3600
"""Seconds that a comparison looks back at most; a pin serves for months, and Prometheus forgets."""


@dataclass(frozen=True)
class Subject:
    """A version whose traffic is watched, and the production traffic that it is compared with."""

    namespace: str
    rollout: str
    model: str
    version: str
    slices: tuple[Slice, ...]
    """Its own: candidate, pin, or stable and baseline of production itself."""
    compare_since: datetime
    """Comparisons count from here: the beginning of the walk."""
    limit_since: datetime
    """Absolute limits are measured from here: the beginning of the step."""
    baseline_version: str | None = None
    baseline_slices: tuple[Slice, ...] = ()
    longest: int = 3600
    """Seconds that an absolute limit looks back at most; what was long ago hides what is now."""


class Sample(NamedTuple):
    """One series of an instant vector; its value is finite."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Measurement:
    """What was found at one moment; ``error`` says why nothing could be found out."""

    at: datetime
    value: float | None = None
    samples: float = 0
    counts: Counts | None = None
    """Of a rate."""
    baseline: Counts | None = None
    """Production's, of a rate that compares."""
    error: str | None = None


def window_seconds(metric: AnalysisMetric, subject: Subject, now: datetime) -> int:
    """From the beginning of walk or step until now, within bounds."""
    since, longest = (
        (subject.compare_since, LONGEST_WALK) if metric.compare_to else (subject.limit_since, subject.longest)
    )
    return min(longest, max(SHORTEST_WINDOW, ceil((now - since).total_seconds())))


def build_queries(metric: AnalysisMetric, subject: Subject, window: int) -> tuple[str, ...]:
    """The PromQL expressions that the metric needs, in the order that `read_answers` expects."""
    match metric.template:
        case MetricTemplate.ERROR_RATE:
            return (_counts_query(REQUESTS, "outcome", metric, subject, window),)
        case MetricTemplate.NEGATIVE_FEEDBACK_RATE:
            return (_counts_query(FEEDBACK, "rating", metric, subject, window),)
        case MetricTemplate.LATENCY_P95:
            chosen = _selector(subject, subject.slices)
            return (
                f"histogram_quantile(0.95, sum by (le) (increase({DURATION}_bucket{chosen}[{window}s])))",
                f"sum(increase({DURATION}_count{chosen}[{window}s]))",
            )
        case None:
            return (_filled_in(metric.query or "", subject, window),)


def read_answers(
    metric: AnalysisMetric, subject: Subject, answers: Sequence[Sequence[Sample]], at: datetime
) -> Measurement:
    """The measurement that the answers amount to."""
    match metric.template:
        case MetricTemplate.ERROR_RATE:
            return _read_counts(metric, subject, answers[0], at, "outcome", FAILED_OUTCOMES)
        case MetricTemplate.NEGATIVE_FEEDBACK_RATE:
            return _read_counts(metric, subject, answers[0], at, "rating", frozenset({"down"}))
        case MetricTemplate.LATENCY_P95:
            samples = sum(s.value for s in answers[1])
            return Measurement(at, _only_value(answers[0]) if samples else None, samples)
        case None:
            if len(answers[0]) > 1:
                return Measurement(at, error=f"the query gives {len(answers[0])} series; aggregate them to one")
            return Measurement(at, _only_value(answers[0]))


def _selector(subject: Subject, slices: Sequence[Slice], version: str | None = None, more: str = "") -> str:
    names = "|".join(slices)
    return (
        f'{{namespace="{subject.namespace}",rollout="{subject.rollout}",'
        f'model_version="{version or subject.version}",slice=~"{names}"{more}}}'
    )


def _counts_query(series: str, label: str, metric: AnalysisMetric, subject: Subject, window: int) -> str:
    more = f',outcome!~"{"|".join(sorted(UNCOUNTED_OUTCOMES))}"' if label == "outcome" else ""
    parts = [_selector(subject, subject.slices, more=more)]
    if metric.compare_to and subject.baseline_version:
        parts.append(_selector(subject, subject.baseline_slices, subject.baseline_version, more))
    return " or ".join(
        f"sum by (model_version, slice, {label}) (increase({series}{part}[{window}s]))" for part in parts
    )


def _read_counts(
    metric: AnalysisMetric, subject: Subject, answer: Sequence[Sample], at: datetime, label: str, failed: frozenset[str]
) -> Measurement:
    def counted(version: str | None, slices: Sequence[Slice]) -> Counts:
        own = [s for s in answer if s.labels.get("model_version") == version and s.labels.get("slice") in slices]
        return Counts(sum(s.value for s in own if s.labels.get(label) in failed), sum(s.value for s in own))

    counts = counted(subject.version, subject.slices)
    baseline = counted(subject.baseline_version, subject.baseline_slices) if metric.compare_to else None
    return Measurement(at, counts.rate, counts.samples, counts, baseline)


def _only_value(answer: Sequence[Sample]) -> float | None:
    return answer[0].value if len(answer) == 1 and isfinite(answer[0].value) else None


def _filled_in(query: str, subject: Subject, window: int) -> str:
    """Names are DNS labels and slices are ours, so nothing needs quoting."""
    values = {
        "version": subject.version,
        "slice": subject.slices[0],
        "rollout": subject.rollout,
        "namespace": subject.namespace,
        "model": subject.model,
        "window": f"{window}s",
    }
    for name, value in values.items():
        query = query.replace(f"{{{{{name}}}}}", value)
    return query
