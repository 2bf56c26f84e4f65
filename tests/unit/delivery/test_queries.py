"""What Prometheus is asked, and what its answers amount to."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tuningfork.api.rollout import AnalysisMetric, Slice
from tuningfork.api.routes import CandidateRoute, PinRoute, RouteTable
from tuningfork.delivery.evidence import Counts
from tuningfork.delivery.queries import Measurement, Sample, Subject, build_queries, read_answers, window_seconds
from tuningfork.delivery.split import in_words, shares

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CANDIDATE = Subject(
    namespace="ml",
    rollout="support",
    model="support",
    version="support-v2",
    slices=(Slice.CANDIDATE,),
    compare_since=NOW - timedelta(seconds=90),
    limit_since=NOW - timedelta(seconds=30.2),
    baseline_version="support-v1",
    baseline_slices=(Slice.BASELINE,),
)


def metric(template: str | None = None, **fields: Any) -> AnalysisMetric:
    return AnalysisMetric.model_validate({"name": "m", "template": template} | fields)


def compared(template: str) -> AnalysisMetric:
    return metric(template, compareTo="Production", maxIncrease=0.1)


def test_a_rate_that_compares_asks_for_both_slices_in_one_query() -> None:
    (query,) = build_queries(compared("ErrorRate"), CANDIDATE, 90)
    own = '{namespace="ml",rollout="support",model_version="support-v2",slice=~"candidate"'
    production = '{namespace="ml",rollout="support",model_version="support-v1",slice=~"baseline"'
    counted = ',outcome!~"client_abort|client_error|rejected"}[90s]))'
    by = "sum by (model_version, slice, outcome) (increase(tuningfork_router_requests_total"
    assert query == f"{by}{own}{counted} or {by}{production}{counted}"


def test_latency_asks_for_the_quantile_and_how_many_requests_it_rests_on() -> None:
    chosen = '{namespace="ml",rollout="support",model_version="support-v2",slice=~"candidate"}[30s]'
    assert build_queries(metric("LatencyP95", max=2), CANDIDATE, 30) == (
        f"histogram_quantile(0.95, sum by (le) (increase(tuningfork_router_request_duration_seconds_bucket{chosen})))",
        f"sum(increase(tuningfork_router_request_duration_seconds_count{chosen}))",
    )


def test_a_query_of_the_user_is_filled_in() -> None:
    query = "x{v='{{version}}',s='{{slice}}',r='{{rollout}}',n='{{namespace}}',m='{{model}}'}[{{window}}]"
    assert build_queries(metric(query=query, max=1), CANDIDATE, 30) == (
        "x{v='support-v2',s='candidate',r='support',n='ml',m='support'}[30s]",
    )


@pytest.mark.parametrize(
    ("m", "later", "seconds"),
    [
        pytest.param(compared("ErrorRate"), 0, 90, id="a comparison counts from the beginning of the walk"),
        pytest.param(metric("ErrorRate", max=1), 0, 31, id="a limit from the beginning of the step"),
        pytest.param(metric("ErrorRate", max=1), -29, 10, id="at least two scrapes"),
        pytest.param(metric("ErrorRate", max=1), 90_000, 3600, id="what was long ago does not hide what is now"),
        pytest.param(compared("ErrorRate"), 10**7, 604_800, id="Prometheus forgets"),
    ],
)
def test_the_window(m: AnalysisMetric, later: int, seconds: int) -> None:
    assert window_seconds(m, CANDIDATE, NOW + timedelta(seconds=later)) == seconds


def sample(version: str, slice_: str, value: float, **labels: str) -> Sample:
    return Sample({"model_version": version, "slice": slice_, **labels}, value)


def test_counts_are_read_by_version_slice_and_outcome() -> None:
    answer = [
        sample("support-v2", "candidate", 20, outcome="ok"),
        sample("support-v2", "candidate", 3, outcome="timeout"),
        sample("support-v2", "candidate", 1, outcome="stream_error"),
        sample("support-v1", "baseline", 30, outcome="ok"),
        sample("support-v1", "baseline", 2, outcome="upstream_error"),
        sample("support-v1", "stable", 99, outcome="upstream_error"),
    ]
    assert read_answers(compared("ErrorRate"), CANDIDATE, [answer], NOW) == Measurement(
        NOW, value=4 / 24, samples=24, counts=Counts(4, 24), baseline=Counts(2, 32)
    )


def test_feedback_counts_the_answers_rated_down() -> None:
    answer = [
        sample("support-v2", "candidate", 5, rating="up"),
        sample("support-v2", "candidate", 15, rating="down"),
        sample("support-v1", "baseline", 0, rating="up"),
        sample("support-v1", "baseline", 0, rating="down"),
    ]
    found = read_answers(compared("NegativeFeedbackRate"), CANDIDATE, [answer], NOW)
    assert (found.counts, found.baseline, found.value) == (Counts(15, 20), Counts(0, 0), 0.75)


@pytest.mark.parametrize(
    ("m", "answers", "expected"),
    [
        pytest.param(
            metric("LatencyP95", max=2), [[Sample({}, 1.5)], [Sample({}, 40)]], Measurement(NOW, 1.5, 40), id="latency"
        ),
        pytest.param(metric("LatencyP95", max=2), [[], [Sample({}, 0)]], Measurement(NOW), id="no requests"),
        pytest.param(metric(query="x", max=2), [[Sample({}, 7)]], Measurement(NOW, 7), id="one series"),
        pytest.param(metric(query="x", max=2), [[]], Measurement(NOW), id="nothing"),
        pytest.param(
            metric(query="x", max=2),
            [[Sample({"pod": "a"}, 7), Sample({"pod": "b"}, 8)]],
            Measurement(NOW, error="the query gives 2 series; aggregate them to one"),
            id="several series are no number",
        ),
    ],
)
def test_other_answers(m: AnalysisMetric, answers: list[list[Sample]], expected: Measurement) -> None:
    assert read_answers(m, CANDIDATE, answers, NOW) == expected


def test_the_split_in_numbers_and_words() -> None:
    def route(version: str, **fields: Any) -> dict[str, Any]:
        return {"version": version, "adapter": version, **fields}

    table = RouteTable(
        generation=1, namespace="ml", rollout="support", model="support", engine_service="e",
        stable=route("v1"),
        pins=[PinRoute(**route("v3", track="staging", weight=5, salt="s")), PinRoute(**route("v4", track="canary", weight=0, salt="s"))],
        candidate=CandidateRoute(**route("v2", track="canary", weight=20, baseline_weight=20, salt="s")),
    )  # fmt: skip
    assert shares(table) == {"v1": 75, "v3": 5, "v2": 20}
    assert in_words(shares(table)) == "v1 75 / v3 5 / v2 20"
    assert shares(table.model_copy(update={"stable": None})) == {}
