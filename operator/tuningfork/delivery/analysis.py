"""From a measurement to a verdict, and from verdicts to what a walk does next.

A verdict is one of four, and silence is two of them: no data and no provider are never taken for good or bad news, each has its own
policy. What passes is "no evidence of harm", not proof of health. A metric marked dryRun is judged like the others and never asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tuningfork.api import parse_time, seconds, timestamp
from tuningfork.api.rollout import (
    Action,
    Analysis,
    AnalysisMetric,
    MetricStatus,
    MetricTemplate,
    RolloutReason,
    SilencePolicy,
    Verdict,
)
from tuningfork.delivery.evidence import Counts, e_value
from tuningfork.delivery.queries import Measurement

LARGEST_E: Final = 1e12
"""What status shows at most: JSON has no infinity, and nobody needs more."""

_SILENT = (Verdict.NO_DATA, Verdict.PROVIDER_ERROR)

_NOUNS = {
    MetricTemplate.ERROR_RATE: "requests failed",
    MetricTemplate.NEGATIVE_FEEDBACK_RATE: "rated answers rated down",
}


@dataclass(frozen=True)
class Outcome:
    """What the analysis of one subject says."""

    action: Action
    reason: RolloutReason
    message: str
    first_failure: datetime | None = None
    """When the measurement that began the failure was made."""


def evidence_needed(analysis: Analysis) -> float:
    """The e-value at which a comparing metric fails: alpha is shared equally by all that decide (Bonferroni)."""
    comparing = sum(1 for metric in analysis.metrics if metric.compare_to and not metric.dry_run)
    return max(1, comparing) / analysis.alpha


def judge(
    metric: AnalysisMetric, subject: str, old: MetricStatus | None, found: Measurement, needed: float, *, in_force: bool
) -> MetricStatus:
    """The metric's status after one more measurement. While no weight is in force, missing data is no silence."""
    verdict, message, e = _verdict(metric, found, needed)
    failing, silent = verdict is Verdict.FAIL, verdict in _SILENT
    at = timestamp(found.at)
    before = old or MetricStatus(subject=subject, name=metric.name, verdict=verdict)
    fails = before.consecutive_failures + 1 if failing else before.consecutive_failures if silent else 0
    counts_as_silent = silent and (in_force or verdict is Verdict.PROVIDER_ERROR)
    return MetricStatus(
        subject=subject,
        name=metric.name,
        verdict=verdict,
        value=_rounded(found.value),
        baseline=_rounded(found.baseline.rate) if found.baseline else None,
        samples=round(found.samples, 1),
        baseline_samples=round(found.baseline.samples, 1) if found.baseline else 0,
        failures=round(found.counts.failures, 1) if found.counts else 0,
        baseline_failures=round(found.baseline.failures, 1) if found.baseline else 0,
        e_value=_rounded(min(e, LARGEST_E)) if e is not None else None,
        consecutive_failures=fails,
        failing_since=(before.failing_since or at) if fails else None,
        valid=before.valid + (0 if silent else 1),
        silent_since=(before.silent_since or at) if counts_as_silent else None,
        message=f"{metric.name}: {message}",
        measured_at=at,
    )


def decide(analysis: Analysis, statuses: Mapping[str, MetricStatus], now: datetime) -> Outcome:
    """What follows for a subject: failures first, then silence, else no evidence of harm."""
    deciding = [(m, statuses[m.name]) for m in analysis.metrics if not m.dry_run and m.name in statuses]
    for metric, status in deciding:
        if has_failed(metric, status):
            return Outcome(Action.FAIL, RolloutReason.MetricFailed, status.message, _moment(status.failing_since))
    silent = [_silence(analysis, status, now) for _, status in deciding if status.silent_since]
    for action in (Action.FAIL, Action.PAUSE, Action.HOLD):
        for outcome in silent:
            if outcome.action is action:
                return outcome
    said = "no evidence of harm" if any(not m.dry_run for m in analysis.metrics) else "no metric decides"
    return Outcome(Action.PASS, RolloutReason.NoEvidenceOfHarm, said)


def has_failed(metric: AnalysisMetric, status: MetricStatus) -> bool:
    """Whether the metric used up its failure limit."""
    return status.consecutive_failures >= metric.failure_limit.consecutive


def is_step_proven(analysis: Analysis, statuses: Mapping[str, MetricStatus], now: datetime) -> bool:
    """Whether every deciding metric has as many valid measurements in this step as it takes to fail it, the last one passed.

    With fewer, a step could end before the metric had a chance to fail.
    """

    def proven(metric: AnalysisMetric) -> bool:
        status = statuses.get(metric.name)
        if status is None:
            return False
        if status.silent_since:
            return _silence(analysis, status, now).action is Action.PASS
        return status.verdict is Verdict.PASS and status.valid >= metric.failure_limit.consecutive

    return all(proven(metric) for metric in analysis.metrics if not metric.dry_run)


def new_step(statuses: Sequence[MetricStatus], subject: str) -> list[MetricStatus]:
    """The statuses with the subject's per-step counts at their beginning."""
    fresh = {"valid": 0, "silent_since": None}
    return [s.model_copy(update=fresh) if s.subject == subject else s for s in statuses]


def _silence(analysis: Analysis, status: MetricStatus, now: datetime) -> Outcome:
    provider = status.verdict is Verdict.PROVIDER_ERROR
    policy: SilencePolicy = analysis.on_provider_error if provider else analysis.on_no_data
    reason = RolloutReason.ProviderError if provider else RolloutReason.NoData
    since = _moment(status.silent_since)
    over = since is not None and now >= since + timedelta(seconds=seconds(policy.deadline))
    action = policy.then if policy.action is Action.HOLD and over else policy.action
    field = "onProviderError" if provider else "onNoData"
    lasts = f" for {policy.deadline}" if over else ""
    return Outcome(action, reason, f"{status.message}{lasts}; {field} says {action}", since)


def _verdict(metric: AnalysisMetric, found: Measurement, needed: float) -> tuple[Verdict, str, float | None]:
    if found.error is not None:
        return Verdict.PROVIDER_ERROR, found.error, None
    if metric.compare_to:
        return _compared(metric, found.counts or Counts(0, 0), found.baseline or Counts(0, 0), needed)
    if found.value is None:
        return Verdict.NO_DATA, "no data", None
    if found.samples < metric.min_samples:
        return Verdict.NO_DATA, f"{found.samples:.0f} of {metric.min_samples} samples", None
    if metric.max_ is not None and found.value > metric.max_:
        return Verdict.FAIL, f"{found.value:.4g} is above the limit of {metric.max_:g}", None
    if metric.min_ is not None and found.value < metric.min_:
        return Verdict.FAIL, f"{found.value:.4g} is below the limit of {metric.min_:g}", None
    limit = f"at most {metric.max_:g}" if metric.max_ is not None else f"at least {metric.min_:g}"
    return Verdict.PASS, f"{found.value:.4g}, {limit}", None


def _compared(
    metric: AnalysisMetric, own: Counts, production: Counts, needed: float
) -> tuple[Verdict, str, float | None]:
    """Proof of harm needs no minimum of samples, since the test is exact; its absence does."""
    margin = metric.max_increase or 0.0
    e = e_value(own, production, margin)
    noun = _NOUNS[metric.template] if metric.template else "failed"
    numbers = f"{_share(own)} {noun}, {_share(production)} on production"
    evidence = f"evidence {_in_words(e)} of {needed:g} needed"
    if e >= needed:
        return Verdict.FAIL, f"{numbers}: worse by more than {margin:g} ({evidence})", e
    fewest = min(own.samples, production.samples)
    if fewest < max(1, metric.min_samples):
        return Verdict.NO_DATA, f"{fewest:.0f} of {max(1, metric.min_samples)} samples; {numbers}", e
    return Verdict.PASS, f"{numbers}: no evidence of harm ({evidence})", e


def _in_words(e: float) -> str:
    return f"{e:.3g}" if e < 100 else f"{e:,.0f}" if e < 1e6 else "over a million"


def _share(counts: Counts) -> str:
    percent = f" ({counts.rate:.0%})" if counts.rate is not None else ""
    return f"{counts.failures:.0f} of {counts.samples:.0f}{percent}"


def _moment(text: str | None) -> datetime | None:
    return parse_time(text) if text else None


def _rounded(value: float | None) -> float | None:
    """Four significant digits: enough to read, few enough that status does not change for nothing."""
    return None if value is None else float(f"{value:.4g}")
