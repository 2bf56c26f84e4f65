"""The dashboard's queries: valid, about series that exist, and complete once variables are replaced."""

import json
import re

import pytest

from chart import CHART
from dashboard import COLUMNS, DASHBOARD, ROWS, build_dashboard, panel_queries
from lint_chart import as_rules, promtool_problems
from tuningfork.control.metrics import Metrics
from tuningfork.control.store import MemoryStore
from tuningfork_serving.router.metrics import Outcome, RouterMetrics

BUILT = build_dashboard()
QUERIES = panel_queries(BUILT)


def test_the_chart_has_it() -> None:
    assert json.loads(DASHBOARD.read_text()) == BUILT


def test_every_query_is_promql() -> None:
    assert list(promtool_problems("dashboard", as_rules(QUERIES))) == []


def test_a_query_that_is_not_is_found() -> None:
    (problem,) = promtool_problems("dashboard", as_rules([("Broken", "sum(rate(x[1m])")]))
    assert "unclosed left parenthesis" in problem


def test_no_variable_is_left() -> None:
    assert [expression for _, expression in QUERIES if "$" in expression] == []


def test_every_panel_has_a_query() -> None:
    assert {title for title, _ in QUERIES} == {panel.title for row in ROWS.values() for panel in row}


@pytest.mark.parametrize(
    "series",
    [
        "tuningfork_objects",
        "tuningfork_job_loss",
        "tuningfork_job_progress_ratio",
        "tuningfork_router_weight_ratio",
        "tuningfork_router_requests_total",
        "tuningfork_router_request_duration_seconds_bucket",
        "tuningfork_router_feedback_total",
        "tuningfork_router_overhead_seconds_bucket",
        "tuningfork_queue_depth",
        "tuningfork_reconciles_total",
        "vllm:num_requests_running",
    ],
)
def test_it_shows(series: str) -> None:
    assert any(re.search(rf"\b{series}\b", expression) for _, expression in QUERIES)


def exposed() -> set[str]:
    """Names of all series of the operator and of the router."""
    operator = Metrics()
    operator.watch_objects(MemoryStore(), ["FineTuneJob"])
    return {
        name
        for registry in (operator.registry, RouterMetrics("ml", "support").registry)
        for family in registry.collect()
        for name in (family.name, f"{family.name}_total", f"{family.name}_bucket")
    }


ALERTS = (CHART / "files" / "alerts.yaml").read_text()


@pytest.mark.parametrize("text", [str(QUERIES), ALERTS], ids=["panels", "alerts"])
def test_series_that_are_asked_for_exist(text: str) -> None:
    """A query after a renamed series is valid, and empty for ever."""
    assert set(re.findall(r"\btuningfork_\w+", text)) - exposed() == set()


def test_the_outcomes_that_are_asked_for_exist() -> None:
    asked = {o for labels in re.findall(r'outcome[=!]~"([^"]+)"', str(QUERIES) + ALERTS) for o in labels.split("|")}
    assert asked == set(Outcome) - {Outcome.OK}


def test_panels_do_not_overlap_and_stay_on_the_grid() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in BUILT["panels"]:
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert cells.isdisjoint(covered), panel["title"]
        assert max(x for x, _ in covered) < COLUMNS, panel["title"]
        cells |= covered
