"""One measurement to a verdict, verdicts to what follows."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tuningfork.api.rollout import Action, Analysis, AnalysisMetric, MetricStatus, RolloutReason, Verdict
from tuningfork.delivery.analysis import decide, evidence_needed, is_step_proven, judge
from tuningfork.delivery.evidence import Counts
from tuningfork.delivery.queries import Measurement

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def metric(**fields: Any) -> AnalysisMetric:
    return AnalysisMetric.model_validate({"name": "m", "template": "LatencyP95", "max": 2} | fields)


def rate(**fields: Any) -> AnalysisMetric:
    compare = {"name": "m", "template": "ErrorRate", "compareTo": "Production", "maxIncrease": 0.1, "minSamples": 10}
    return AnalysisMetric.model_validate(compare | fields)


def verdict(m: AnalysisMetric, **found: Any) -> tuple[Verdict, str]:
    status = judge(m, "v2", None, Measurement(NOW, **found), needed=20, in_force=True)
    return status.verdict, status.message


@pytest.mark.parametrize(
    ("m", "found", "expected", "says"),
    [
        pytest.param(metric(), {"value": 1.5, "samples": 9}, "Pass", "m: 1.5, at most 2", id="below the limit"),
        pytest.param(metric(), {"value": 2.5, "samples": 9}, "Fail", "m: 2.5 is above the limit of 2", id="above"),
        pytest.param(metric(max=None, min=3), {"value": 2.5}, "Fail", "m: 2.5 is below the limit of 3", id="below min"),
        pytest.param(metric(max=None, min=3), {"value": 3.5}, "Pass", "m: 3.5, at least 3", id="above min"),
        pytest.param(metric(), {"value": None}, "NoData", "m: no data", id="not a number"),
        pytest.param(metric(minSamples=10), {"value": 9.0, "samples": 7}, "NoData", "m: 7 of 10 samples", id="too few"),
        pytest.param(metric(), {"error": "it is away"}, "ProviderError", "m: it is away", id="no provider"),
        pytest.param(
            rate(), {"counts": Counts(1, 50), "baseline": Counts(1, 50)}, "Pass",
            "m: 1 of 50 (2%) requests failed, 1 of 50 (2%) on production: no evidence of harm (evidence 0.0791 of 20 needed)",
            id="a rate like production's",
        ),
        pytest.param(
            rate(), {"counts": Counts(1, 50), "baseline": Counts(0, 4)}, "NoData",
            "m: 4 of 10 samples; 1 of 50 (2%) requests failed, 0 of 4 (0%) on production",
            id="too few on production",
        ),
        pytest.param(
            rate(), {"counts": Counts(9, 9), "baseline": Counts(0, 9)}, "Fail",
            "m: 9 of 9 (100%) requests failed, 0 of 9 (0%) on production: worse by more than 0.1 (evidence 1,962 of 20 needed)",
            id="proof of harm needs no minimum",
        ),
        pytest.param(
            rate(), {"counts": None}, "NoData",
            "m: 0 of 10 samples; 0 of 0 requests failed, 0 of 0 on production",
            id="no series",
        ),
    ],
)  # fmt: skip
def test_verdict(m: AnalysisMetric, found: dict[str, Any], expected: str, says: str) -> None:
    assert verdict(m, **found) == (expected, says)


def test_infinite_evidence_stays_a_number_in_status() -> None:
    found = Measurement(NOW, counts=Counts(5000, 5000), baseline=Counts(0, 5000))
    assert judge(rate(), "v2", None, found, 20, in_force=True).e_value == 1e12


def judged(m: AnalysisMetric, *values: float | None) -> MetricStatus:
    status = None
    for index, value in enumerate(values):
        found = Measurement(NOW + timedelta(seconds=5 * index), value=value)
        status = judge(m, "v2", status, found, 20, in_force=True)
    assert status
    return status


def test_failures_in_a_row_are_counted_from_the_first_and_silence_does_not_break_the_row() -> None:
    assert judged(metric(), 3, None, 3).consecutive_failures == 2
    assert judged(metric(), 3, None, 3).failing_since == "2026-01-31T12:00:00Z"
    assert judged(metric(), 3, 1, 3).consecutive_failures == 1
    assert judged(metric(), 3, 1, 3).failing_since == "2026-01-31T12:00:10Z"
    assert judged(metric(), 3, 1).failing_since is None


def test_silence_is_measured_from_its_beginning() -> None:
    assert judged(metric(), 1, None, None).silent_since == "2026-01-31T12:00:05Z"
    assert judged(metric(), None, 1).silent_since is None


def test_missing_data_is_no_silence_before_there_is_weight() -> None:
    assert judge(metric(), "v2", None, Measurement(NOW), 20, in_force=False).silent_since is None
    assert judge(metric(), "v2", None, Measurement(NOW, error="x"), 20, in_force=False).silent_since is not None


def test_alpha_is_shared_by_the_metrics_that_compare_and_decide() -> None:
    metrics = [rate(name="a"), rate(name="b"), rate(name="c", dryRun=True), metric(name="d")]
    assert evidence_needed(Analysis(metrics=metrics, alpha=0.05)) == 40
    assert evidence_needed(Analysis(metrics=[metric()], alpha=0.05)) == 20


def test_a_failure_outranks_silence_and_a_dry_run_is_not_asked() -> None:
    loud, quiet, dry = metric(name="loud"), metric(name="quiet"), metric(name="dry", dryRun=True)
    statuses = {"loud": judged(loud, 3), "quiet": judged(quiet, None), "dry": judged(dry, 3)}
    analysis = Analysis(metrics=[quiet, dry, loud])
    outcome = decide(analysis, statuses, NOW)
    assert (outcome.action, outcome.reason, outcome.first_failure) == (Action.FAIL, RolloutReason.MetricFailed, NOW)
    nobody_decides = decide(Analysis(metrics=[dry]), statuses, NOW)
    assert (nobody_decides.action, nobody_decides.message) == (Action.PASS, "no metric decides")
    assert decide(Analysis(metrics=[quiet]), statuses, NOW).reason is RolloutReason.NoData


def test_a_step_is_proven_by_as_many_measurements_as_could_have_failed_it() -> None:
    twice = metric(failureLimit={"consecutive": 2})
    analysis = Analysis(metrics=[twice])
    assert not is_step_proven(analysis, {}, NOW)
    assert not is_step_proven(analysis, {"m": judged(twice, 1)}, NOW)
    assert is_step_proven(analysis, {"m": judged(twice, 1, 1)}, NOW)
    assert not is_step_proven(analysis, {"m": judged(twice, 1, 1, 3)}, NOW), "the last one failed"
    assert not is_step_proven(analysis, {"m": judged(twice, 1, 1, None)}, NOW), "the last one said nothing"
