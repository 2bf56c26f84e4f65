"""No data and no provider are neither good nor bad news; each has its own policy."""

from typing import Any

import pytest

from support.rollout_world import ERRORS, FEEDBACK, Traffic, World, serving


def analysis(*metrics: Any, **policies: Any) -> dict[str, Any]:
    return {"interval": "5s", "metrics": list(metrics), **policies}


def walking(rps: float = 3.0, **fields: Any) -> World:
    world = serving(rps=rps, analysis=analysis(FEEDBACK, **fields)).ask_for("support-v2")
    return world.run_until(lambda w: w.shares.get("support-v2") == 20)


def test_a_dead_prometheus_gives_no_first_weight() -> None:
    world = serving()
    world.prometheus_answers = False
    world.ask_for("support-v2").run(120)
    assert world.shares == {"support-v1": 100}
    assert world.condition("Ready") == ("False", "ProviderError")
    assert "no answer within 5 s" in world.seen.message
    world.prometheus_answers = True
    world.run_until(lambda w: w.seen.phase == "Healthy")
    assert world.shares == {"support-v2": 100}


def test_a_dead_prometheus_gives_a_pin_no_weight_and_takes_none_from_one_that_serves() -> None:
    pins = {"staging": {"version": "support-v2", "weight": 10}, "canary": {"version": "support-v3", "weight": 5}}
    world = serving().edit(lambda spec: spec["tracks"].update(staging=pins["staging"]))
    world.run_until(lambda w: w.seen.phase == "Healthy")
    world.prometheus_answers = False
    world.edit(lambda spec: spec["tracks"].update(pins)).run(120)
    assert world.shares == {"support-v1": 90, "support-v2": 10}
    assert world.condition("Ready") == ("False", "ProviderError")
    assert world.seen.message.startswith("support-v3 gets no weight while nobody sees it: ")
    world.prometheus_answers = True
    world.run_until(lambda w: w.seen.phase == "Healthy")
    assert world.shares == {"support-v1": 85, "support-v2": 10, "support-v3": 5}


def test_a_prometheus_that_dies_holds_the_step_and_fails_it_after_the_deadline() -> None:
    world = walking(onProviderError={"action": "Hold", "deadline": "3m", "then": "Fail"})
    world.prometheus_answers = False
    world.run(170)
    assert world.shares == {"support-v1": 80, "support-v2": 20}
    assert world.condition("Analyzed") == ("Unknown", "ProviderError")
    world.run(30)
    assert world.shares == {"support-v1": 100}
    assert "for 3m; onProviderError says Fail" in world.seen.failed[0].message


def test_a_short_outage_changes_nothing() -> None:
    world = walking()
    world.prometheus_answers = False
    world.run(120)
    world.prometheus_answers = True
    world.run_until(lambda w: w.seen.phase == "Healthy")
    assert world.shares == {"support-v2": 100}


@pytest.mark.parametrize(
    ("policy", "after", "phase"),
    [
        pytest.param({"action": "Hold", "deadline": "2m", "then": "Fail"}, {"support-v1": 100}, "Degraded", id="hold, then fail"),
        pytest.param({"action": "Hold", "deadline": "2m", "then": "Pass"}, {"support-v2": 100}, "Healthy", id="hold, then pass"),
        pytest.param({"action": "Fail"}, {"support-v1": 100}, "Degraded", id="fail at once"),
        pytest.param({"action": "Pass"}, {"support-v2": 100}, "Healthy", id="pass"),
        pytest.param({"action": "Pause"}, {"support-v1": 80, "support-v2": 20}, "Paused", id="pause"),
        pytest.param(
            {"action": "Hold", "deadline": "1h"}, {"support-v1": 80, "support-v2": 20}, "Progressing", id="hold on"
        ),
    ],
)  # fmt: skip
def test_no_data(policy: dict[str, str], after: dict[str, int], phase: str) -> None:
    world = walking(rps=0, onNoData=policy).run(500)
    assert (world.shares, world.seen.phase) == (after, phase)


def test_a_paused_walk_goes_on_by_command() -> None:
    world = walking(rps=0, onNoData={"action": "Pause"}).run(60).command("promote", "support-v2", 0).run(5)
    assert world.shares == {"support-v1": 70, "support-v2": 30}


def test_a_dry_run_is_shown_and_decides_nothing() -> None:
    world = serving(analysis=analysis(ERRORS | {"dryRun": True}, FEEDBACK)).ask_for("support-v2")
    world.traffic["support-v2"] = Traffic(failing=1.0)
    world.run_until(lambda w: w.seen.phase == "Healthy")
    assert world.shares == {"support-v2": 100}


def test_without_metrics_only_time_counts() -> None:
    world = serving(analysis=analysis()).ask_for("support-v2").run_until(lambda w: w.seen.phase == "Healthy", within=90)
    assert world.shares == {"support-v2": 100}
