"""Pins: they take their share, make room for the candidate, fail on their own and are never promoted."""

from collections.abc import Callable
from typing import Any

import pytest

from support.rollout_world import Traffic, World, adapter_of, make_version, serving
from tuningfork.api.modelversion import Stage
from tuningfork.api.rollout import TrackStatus
from tuningfork.planning.modelversion import stage_of

STAGING = {"staging": {"version": "support-v2", "weight": 10}}
BOTH = STAGING | {"canary": {"version": "support-v3", "weight": 5}}


def pinned(pins: dict[str, Any]) -> World:
    """A world whose pins have their shares."""
    world = serving().edit(lambda spec: spec["tracks"].update(pins))
    return world.run_until(lambda w: w.seen.phase == "Healthy")


def track(world: World, name: str) -> TrackStatus:
    return next(t for t in world.seen.tracks if t.name == name)


def test_three_tracks_serve_side_by_side() -> None:
    world = pinned(BOTH)
    assert world.shares == {"support-v1": 85, "support-v2": 10, "support-v3": 5}
    assert world.seen.weights == "support-v1 85 / support-v2 10 / support-v3 5"
    assert world.seen.history[-1].why == "support-v1 serves beside support-v2 on staging and support-v3 on canary"
    assert [(t.name, t.version, t.weight, t.slice, t.state) for t in world.seen.tracks] == [
        ("canary", "support-v3", 5, "pin", "Serving"),
        ("production", "support-v1", 85, "stable", "Serving"),
        ("staging", "support-v2", 10, "pin", "Serving"),
    ]
    assert sorted(world.table.testers) == [  # type: ignore[union-attr]
        "canary", "production", "staging", "support-v1", "support-v2", "support-v3",
    ]  # fmt: skip


def test_a_pin_has_no_share_before_every_replica_has_it() -> None:
    world = serving()
    world.engines[0].broken = {adapter_of("support-v2")}
    world.edit(lambda spec: spec["tracks"].update(STAGING)).run(30)
    assert (track(world, "staging").state, world.shares) == ("Waiting", {"support-v1": 100})
    world.engines[0].broken = set()
    world.run(2)
    assert world.shares == {"support-v1": 90, "support-v2": 10}


def test_a_pin_has_no_share_before_its_series_were_scraped_at_zero() -> None:
    world = serving().edit(lambda spec: spec["tracks"].update(STAGING)).run(10)
    assert [(p.version, p.weight) for p in world.table.pins] == [("support-v2", 0)]  # type: ignore[union-attr]
    world.run(4)
    assert world.shares == {"support-v1": 90, "support-v2": 10}


def test_an_unverified_pin_waits_and_production_goes_on() -> None:
    world = serving()
    world.versions["support-v2"] = make_version("support-v2", verified=None)
    world.edit(lambda spec: spec["tracks"].update(STAGING)).run(30)
    assert world.shares == {"support-v1": 100}
    assert world.condition("Ready") == ("False", "WaitingForVersion")
    assert world.condition("Available") == ("True", "Serving")


def test_a_bad_pin_goes_to_zero_and_stays_there() -> None:
    world = serving(rps=20)
    world.traffic["support-v2"] = Traffic(bad=0.9)
    world.edit(lambda spec: spec["tracks"].update(STAGING)).run_until(lambda w: w.seen.phase == "Degraded").run(60)
    assert world.shares == {"support-v1": 100}
    assert track(world, "staging").state == "Failed"
    (failed,) = world.seen.failed
    assert (failed.version, failed.reason) == ("support-v2", "RolledBack")
    assert failed.seconds_to_zero is not None
    assert world.condition("Available") == ("True", "Serving")
    assert world.condition("Ready") == ("False", "RolledBack")


def test_a_pin_is_aborted_and_retried_by_command() -> None:
    world = pinned(STAGING).command("abort", "support-v2").run(3)
    assert (world.shares, track(world, "staging").state) == ({"support-v1": 100}, "Failed")
    world.command("retry", "support-v2").run_until(lambda w: w.seen.phase == "Healthy")
    assert world.shares == {"support-v1": 90, "support-v2": 10}


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(lambda world: world.command("retry", "support-v2"), id="retry"),
        pytest.param(
            lambda world: world.edit(lambda spec: spec["analysis"].update(alpha=0.01)), id="a changed analysis"
        ),
    ],
)
def test_a_pin_that_failed_its_analysis_is_tried_again_without_its_old_measurements(
    again: Callable[[World], World],
) -> None:
    world = serving(rps=20)
    world.traffic["support-v2"] = Traffic(failing=0.9)
    world.edit(lambda spec: spec["tracks"].update(STAGING)).run_until(lambda w: w.seen.phase == "Degraded")
    world.traffic["support-v2"] = Traffic()
    again(world.run(60)).run_until(lambda w: w.seen.phase == "Healthy").run(60)
    assert world.shares == {"support-v1": 90, "support-v2": 10}


def test_a_candidate_displaces_the_pins_on_whose_tracks_it_walks() -> None:
    world = pinned(BOTH).ask_for("support-v4")
    splits = [world.shares]
    displaced = set()
    while world.seen.candidate is None or world.seen.stable.version != "support-v4":  # type: ignore[union-attr]
        world.tick()
        displaced |= {(world.seen.step, t.name) for t in world.seen.tracks if t.state == "Displaced"}
        if world.shares != splits[-1]:
            splits.append(world.shares)
        if world.seen.phase == "Healthy" and world.seen.stable.version == "support-v4":  # type: ignore[union-attr]
            break
    v1, v2, v3, v4 = (f"support-v{n}" for n in (1, 2, 3, 4))
    assert {v1: 70, v2: 10, v4: 20} in splits, "step 1 on canary"
    assert {v1: 65, v3: 5, v4: 30} in splits, "step 2 on staging"
    assert {v1: 45, v2: 10, v3: 5, v4: 40} in splits, "step 3 on production, both pins are back"
    assert splits[-1] == {v4: 85, v2: 10, v3: 5}
    assert {(step, name) for step, name in displaced if step} == {("1/3", "canary"), ("2/3", "staging")}


def test_a_candidate_has_its_stage_on_every_track_it_walks() -> None:
    world, stages = pinned(BOTH).ask_for("support-v4"), [Stage.NONE]
    while stages[-1] is not Stage.PRODUCTION:
        world.tick()
        stage = stage_of("support-v4", [world.observe().raw])
        stages += [stage] if stage is not stages[-1] else []
    assert stages == [Stage.NONE, Stage.CANARY, Stage.STAGING, Stage.PRODUCTION]


def test_a_pin_that_names_the_candidate_merges_with_it() -> None:
    world = pinned(STAGING).ask_for("support-v2").run_until(lambda w: w.seen.step == "1/3")
    assert (track(world, "staging").state, world.shares) == ("Merged", {"support-v1": 80, "support-v2": 20})
    world.run_until(lambda w: w.seen.phase == "Healthy")
    assert world.shares == {"support-v2": 100}


def test_a_pin_keeps_its_users_whatever_the_candidate_does() -> None:
    world = pinned(STAGING)
    salt = world.table.pins[0].salt  # type: ignore[union-attr]
    world.ask_for("support-v4").run_until(lambda w: w.seen.step == "1/3")
    assert world.table.pins[0].salt == salt  # type: ignore[union-attr]
    assert world.table.candidate.salt != salt  # type: ignore[union-attr]


def test_a_pin_taken_out_of_the_spec_loses_its_share_at_once_and_its_adapter_afterwards() -> None:
    world = pinned(STAGING).edit(lambda spec: spec["tracks"].pop("staging"))
    world.reconcile()
    assert world.shares == {"support-v1": 100}
    assert adapter_of("support-v2") in {a.name for a in world.adapters.adapters}  # type: ignore[union-attr]
    world.run(3)
    assert [a.name for a in world.adapters.adapters] == [adapter_of("support-v1")]  # type: ignore[union-attr]
