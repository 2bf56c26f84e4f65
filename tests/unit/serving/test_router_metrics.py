"""Series exist before their first request and go some time after their version."""

from collections.abc import Callable
from typing import Any

import pytest

from tuningfork.api.routes import RouteTable
from tuningfork_serving.router.metrics import RETIRED_SECONDS, Labels, Outcome, RouterMetrics
from tuningfork_serving.router.routes import Routes

Build = Callable[..., RouteTable]


def lanes(metrics: RouterMetrics, table: RouteTable) -> set[Labels]:
    return {metrics.labels(lane.track, lane.slice, lane.target.version) for lane in Routes(table).lanes()}


def series(metrics: RouterMetrics, name: str) -> dict[tuple[str, ...], float]:
    """Values of a series by (slice, version, further label)."""
    return {
        (
            s.labels["slice"],
            s.labels["model_version"],
            *(s.labels[k] for k in ("outcome", "rating", "direction") if k in s.labels),
        ): s.value
        for metric in metrics.registry.collect()
        for s in metric.samples
        if s.name == f"tuningfork_router_{name}"
    }


@pytest.fixture
def metrics() -> RouterMetrics:
    return RouterMetrics("ml", "support")


def test_all_series_of_a_candidate_exist_at_zero_before_it_has_weight(
    metrics: RouterMetrics, table: Build, lane_target: Callable[..., dict[str, Any]]
) -> None:
    walking = table(
        candidate=lane_target("v2", track="canary", weight=0, salt="s"),
        pins=[lane_target("v3", track="staging", weight=0, salt="s")],
    )
    metrics.declare(lanes(metrics, walking), now=0)
    known = {("stable", "v1"), ("baseline", "v1"), ("candidate", "v2"), ("pin", "v3")}
    assert series(metrics, "requests_total") == {(*lane, str(o)): 0 for lane in known for o in Outcome}
    assert series(metrics, "feedback_total") == {(*lane, rating): 0 for lane in known for rating in ("up", "down")}
    assert series(metrics, "request_duration_seconds_count") == dict.fromkeys(known, 0)
    assert series(metrics, "retries_total") == dict.fromkeys(known, 0)


def test_series_go_some_minutes_after_their_version_left(
    metrics: RouterMetrics, table: Build, lane_target: Callable[..., dict[str, Any]]
) -> None:
    old, new = table(candidate=lane_target("v2", track="canary", weight=5, salt="s")), table(generation=2)
    metrics.declare(lanes(metrics, old), now=0)
    metrics.declare(lanes(metrics, new), now=100)
    metrics.sweep(now=100 + RETIRED_SECONDS - 1)
    assert ("candidate", "v2") in series(metrics, "retries_total")
    metrics.sweep(now=100 + RETIRED_SECONDS)
    for name in ("retries_total", "requests_total", "tokens_total", "feedback_total", "overhead_seconds_sum"):
        assert {key[:2] for key in series(metrics, name)} == {("stable", "v1")}


def test_a_version_that_comes_back_keeps_its_series(
    metrics: RouterMetrics, table: Build, lane_target: Callable[..., dict[str, Any]]
) -> None:
    walking = table(candidate=lane_target("v2", track="canary", weight=5, salt="s"))
    candidate = metrics.labels("canary", "candidate", "v2")
    metrics.declare(lanes(metrics, walking), now=0)
    metrics.count(candidate, Outcome.OK, 1.0, 0.1, now=10)
    metrics.declare(lanes(metrics, table()), now=20)
    metrics.declare(lanes(metrics, walking), now=30)
    metrics.sweep(now=30 + RETIRED_SECONDS * 2)
    assert series(metrics, "requests_total")["candidate", "v2", "ok"] == 1


def test_a_tester_s_series_go_when_they_have_not_been_used_for_some_minutes(metrics: RouterMetrics) -> None:
    tester = metrics.labels("canary", "tester", "v2")
    metrics.count(tester, Outcome.OK, 1.0, 0.1, now=0)
    metrics.count(tester, Outcome.OK, 1.0, 0.1, now=200)
    metrics.sweep(now=200 + RETIRED_SECONDS - 1)
    assert series(metrics, "requests_total")["tester", "v2", "ok"] == 2
    metrics.sweep(now=200 + RETIRED_SECONDS)
    assert series(metrics, "requests_total") == {}


def test_weights_of_versions_that_left_are_gone_at_once(metrics: RouterMetrics) -> None:
    metrics.show_routes(1, {("v1", "production"): 80, ("v2", "canary"): 20})
    metrics.show_routes(2, {("v2", "production"): 100})
    found = {
        (s.labels["model_version"], s.labels["track"]): s.value
        for metric in metrics.registry.collect()
        for s in metric.samples
        if s.name == "tuningfork_router_weight_ratio"
    }
    assert found == {("v2", "production"): 1.0}
