"""Every row of DESIGN.md's event table, told in simulated time."""

from datetime import timedelta
from typing import Any

import pytest

from support.rollout_world import (
    FEEDBACK,
    Traffic,
    World,
    adapter_of,
    make_spec,
    make_version,
    serving,
)
from tuningfork.api import parse_time
from tuningfork.api.rollout import CandidateState


def weights(world: World) -> list[dict[str, int]]:
    return [entry.weights for entry in world.seen.history]


def walking(version: str = "support-v2", **changes: Any) -> World:
    """A candidate on its first step, with its weight in force."""
    world = serving(**changes).ask_for(version)
    return world.run_until(lambda w: bool(w.seen.candidate and w.seen.candidate.step_started_at))


def test_the_first_version_serves_when_every_replica_has_it_and_walks_nowhere() -> None:
    world = World()
    world.engines[1].broken = {adapter_of("support-v1")}
    world.run(10)
    assert (world.seen.stable, world.shares) == (None, {})
    assert "sha256 of adapter_model.safetensors" in world.seen.message

    world.engines[1].broken = set()
    world.run(3)
    assert world.seen.stable
    assert world.seen.stable.version == "support-v1"
    assert weights(world) == [{"support-v1": 100}]
    assert world.condition("Ready") == ("True", "Reached")


def test_a_good_candidate_walks_every_step_and_becomes_stable() -> None:
    world = serving().ask_for("support-v2").run_until(lambda w: w.seen.phase == "Healthy")
    assert weights(world) == [
        {"support-v1": 100},
        {"support-v1": 80, "support-v2": 20},
        {"support-v1": 70, "support-v2": 30},
        {"support-v1": 60, "support-v2": 40},
        {"support-v2": 100},
    ]
    assert (world.seen.stable.version, world.seen.previous.version) == ("support-v2", "support-v1")  # type: ignore[union-attr]
    assert world.condition("RollbackReady") == ("True", "RollbackReady")
    assert [reason for reason, _ in world.events] == [
        "CandidateFound", "Serving", "CandidateFound", "Step", "Step", "Step", "Promoting", "Promoted",
    ]  # fmt: skip


def test_a_step_shows_where_the_walk_is() -> None:
    world = walking()
    assert (world.seen.step, world.seen.weights) == ("1/3", "support-v1 80 / support-v2 20")
    tracks = {t.name: (t.version, t.weight, t.slice) for t in world.seen.tracks}
    assert tracks == {"production": ("support-v1", 80, "stable"), "canary": ("support-v2", 20, "candidate")}
    table = world.table
    assert table
    assert table.candidate
    assert (table.candidate.weight, table.candidate.baseline_weight) == (20, 20)


def test_a_bad_candidate_is_stopped_in_the_first_step_and_stays_stopped() -> None:
    world = serving().ask_for("support-v2")
    world.traffic["support-v2"] = Traffic(bad=0.85)
    world.run_until(lambda w: w.seen.phase == "Degraded").run(120)
    assert weights(world) == [{"support-v1": 100}, {"support-v1": 80, "support-v2": 20}, {"support-v1": 100}]
    (failed,) = world.seen.failed
    assert (failed.version, failed.reason) == ("support-v2", "RolledBack")
    assert "rated answers rated down" in failed.message
    assert failed.seconds_to_zero is not None
    assert failed.seconds_to_zero <= 3
    assert world.condition("Available") == ("True", "Serving")
    assert world.condition("Ready") == ("False", "RolledBack")
    assert world.condition("Stalled") == ("True", "RolledBack")
    assert world.condition("Analyzed") == ("False", "MetricFailed")
    assert world.spec["tracks"]["production"] == {"version": "support-v2"}, "Git's spec is left alone"


def test_an_absolute_limit_fails_after_that_many_measurements_in_a_row() -> None:
    world = walking()
    world.traffic["support-v2"] = Traffic(failing=1.0)
    world.run_until(lambda w: bool(w.seen.failed))
    (errors,) = [m for m in world.seen.metrics if (m.subject, m.name) == ("support-v2", "errors")]
    assert (errors.verdict, errors.consecutive_failures) == ("Fail", 2)
    assert world.seen.failed[0].first_failure_at == errors.failing_since
    assert world.seen.failed[0].at > (errors.failing_since or "")


def test_the_same_spec_is_not_tried_again_but_after_retry_it_is() -> None:
    world = serving().ask_for("support-v2")
    world.traffic["support-v2"] = Traffic(bad=1.0)
    world.run_until(lambda w: w.seen.phase == "Degraded")
    world.ask_for("support-v1").run(5)
    assert world.condition("Ready") == ("True", "Reached")
    world.ask_for("support-v2").run(5)
    assert world.condition("Stalled") == ("True", "PreviouslyFailed")
    assert world.seen.candidate is None

    world.traffic["support-v2"] = Traffic()
    world.command("retry", "support-v2").run_until(lambda w: w.seen.phase == "Healthy")
    assert world.shares == {"support-v2": 100}
    assert world.seen.failed == []


def test_changed_analysis_tries_a_failed_version_again() -> None:
    world = serving().ask_for("support-v2")
    world.traffic["support-v2"] = Traffic(bad=0.9)
    world.run_until(lambda w: w.seen.phase == "Degraded")
    world.edit(lambda spec: spec["analysis"].update(metrics=[FEEDBACK | {"maxIncrease": 0.9}]))
    world.run_until(lambda w: w.seen.phase == "Healthy")
    assert world.shares == {"support-v2": 100}


def test_asking_for_stable_again_cancels_the_walk_without_a_failure() -> None:
    world = walking().ask_for("support-v1").run(3)
    assert (world.seen.candidate, world.seen.failed, world.shares) == (None, [], {"support-v1": 100})
    assert world.seen.phase == "Healthy"


def test_another_candidate_in_mid_walk_starts_at_zero_after_the_first_has_gone() -> None:
    world = walking()
    world.ask_for("support-v3").run(2)
    assert world.shares == {"support-v1": 100}
    assert world.seen.failed == []
    world.run_until(lambda w: w.seen.phase == "Healthy")
    assert weights(world)[1:4] == [
        {"support-v1": 80, "support-v2": 20},
        {"support-v1": 100},
        {"support-v1": 80, "support-v3": 20},
    ]


def test_the_way_back_within_the_window_skips_the_steps_but_not_readiness() -> None:
    world = serving().ask_for("support-v2").run_until(lambda w: w.seen.phase == "Healthy")
    world.ask_for("support-v3").run_until(lambda w: bool(w.seen.candidate and w.seen.candidate.weight))
    world.engines[0].broken = {adapter_of("support-v1")}
    world.ask_for("support-v1").run(20)
    assert world.shares == {"support-v2": 100}, "not loaded everywhere"
    world.engines[0].broken = set()
    world.run(5)
    assert world.shares == {"support-v1": 100}
    assert world.seen.history[-2].weights == {"support-v2": 100}


def test_after_the_window_the_way_back_is_a_full_walk() -> None:
    world = serving(rollbackWindow="2m").ask_for("support-v2").run_until(lambda w: w.seen.phase == "Healthy")
    assert adapter_of("support-v1") in {a.name for a in world.adapters.adapters}  # type: ignore[union-attr]
    world.run(130)
    assert [a.name for a in world.adapters.adapters] == [adapter_of("support-v2")]  # type: ignore[union-attr]
    world.ask_for("support-v1").run_until(lambda w: bool(w.shares.get("support-v1")))
    assert world.shares == {"support-v2": 80, "support-v1": 20}


@pytest.mark.parametrize(
    ("change", "restarts"),
    [
        pytest.param(lambda spec: spec["strategy"]["steps"].pop(), True, id="other steps restart the walk"),
        pytest.param(lambda spec: spec["analysis"].update(alpha=0.01), True, id="another analysis restarts the walk"),
        pytest.param(lambda spec: spec["serving"].update(replicas=1), False, id="replicas do not"),
        pytest.param(lambda spec: spec.update(rollbackWindow="1h"), False, id="the rollback window does not"),
    ],
)
def test_what_restarts_a_walk(change: Any, restarts: bool) -> None:
    world = walking()
    before = world.seen.candidate.walk  # type: ignore[union-attr]
    world.edit(change).run(2)
    after = world.seen.candidate
    assert after
    assert (after.walk != before) == restarts
    assert world.shares.get("support-v2", 0) == (0 if restarts else 20)


def test_a_candidate_that_is_never_ready_is_given_up_after_the_deadline() -> None:
    world = serving(progressDeadline="1m")
    world.engines[0].broken = {adapter_of("support-v2")}
    world.ask_for("support-v2").run(58)
    assert world.condition("Ready") == ("False", "WaitingForReplicas")
    world.run(5)
    assert world.condition("Stalled") == ("True", "ProgressDeadlineExceeded")
    assert weights(world) == [{"support-v1": 100}]
    assert world.seen.failed[0].message.startswith("not ready within 1m: 1 of 2 engine pods answer for it")


def test_paused_stops_hold_time_but_not_the_analysis() -> None:
    world = walking().run(5)
    world.edit(lambda spec: spec.update(paused=True)).run(300)
    assert (world.seen.phase, world.seen.step) == ("Paused", "1/3")
    candidate = world.seen.candidate
    assert candidate
    assert candidate.held_seconds < 10
    world.edit(lambda spec: spec.update(paused=False)).run(5)
    assert world.seen.step == "1/3", "hold time goes on where it stood still"

    world.edit(lambda spec: spec.update(paused=True))
    world.traffic["support-v2"] = Traffic(bad=1.0)
    world.run_until(lambda w: w.seen.phase == "Degraded")
    assert world.shares == {"support-v1": 100}


def test_abort_takes_the_weight_back_in_the_same_pass() -> None:
    world = walking().command("abort", "support-v2")
    world.reconcile()
    assert world.shares == {"support-v1": 100}
    world.run(3)
    assert world.condition("Stalled") == ("True", "Aborted")
    assert world.seen.failed[0].seconds_to_zero is not None


def test_abort_beats_promote() -> None:
    world = walking().command("promote-full", "support-v2").command("abort", "support-v2").run(5)
    assert world.shares == {"support-v1": 100}
    assert world.seen.failed[0].reason == "Aborted"


def test_promote_never_overrides_a_failure() -> None:
    world = walking()
    world.traffic["support-v2"] = Traffic(bad=1.0)
    while not world.seen.failed:
        world.command("promote", "support-v2", 2)
        world.tick()
    world.command("promote-full", "support-v2").run(5)
    assert world.shares == {"support-v1": 100}


def test_manual_promotion_waits_at_each_step_for_its_own_command() -> None:
    world = walking(strategy=make_spec("x")["strategy"] | {"promotion": "Manual"}).run(120)
    assert (world.seen.phase, world.seen.step) == ("Paused", "1/3")
    assert world.condition("Ready") == ("False", "WaitingForPromotion")
    assert "tuningfork promote tro/support -n ml" in world.seen.message
    world.command("promote", "support-v2", 0).run(60)
    assert world.seen.step == "2/3", "the command of step 1 acts once"
    world.command("promote", "support-v2", 0).run(20)
    assert world.seen.step == "2/3", "a command that names another step acts never"
    world.command("promote", "support-v2", 1).run(60).command("promote", "support-v2", 2).run(5)
    assert world.shares == {"support-v2": 100}


def test_a_command_that_came_too_early_never_acts() -> None:
    world = serving().command("promote-full", "support-v2").run(3)
    world.ask_for("support-v2").run_until(lambda w: bool(w.seen.candidate and w.seen.candidate.weight))
    assert world.shares == {"support-v1": 80, "support-v2": 20}
    assert ("CommandIgnored", "promote-full of support-v2 at step 1: nothing there to act on") in world.events


@pytest.mark.parametrize("value", ["support-v2", "support-v2/one/x", "/0/x", "support-v2/0/"])
def test_a_command_that_nobody_can_read_is_told_and_acts_never(value: str) -> None:
    world = walking()
    world.metadata = world.metadata | {"annotations": {"tuningfork.dev/abort": value}}
    world.run(3)
    assert world.shares == {"support-v1": 80, "support-v2": 20}
    assert world.events[-1][0] == "CommandIgnored"


def test_promote_full_skips_the_rest() -> None:
    world = walking().command("promote-full", "support-v2").run(4)
    assert world.shares == {"support-v2": 100}


@pytest.mark.parametrize("verb", ["promote", "promote-full"])
def test_a_promotion_while_an_engine_restarts_is_told_and_acts_never(verb: str) -> None:
    world = walking(strategy=make_spec("x")["strategy"] | {"promotion": "Manual"}).run(60)
    world.engines[0].answers = False
    world.command(verb, "support-v2").run(5)
    missing = f"{verb} of support-v2 at step 1: 1 of 2 engine pods answer for it"
    assert [event for event in world.events if event[0] == "CommandIgnored"] == [("CommandIgnored", missing)]
    world.engines[0].answers = True
    world.run(30)
    assert world.shares == {"support-v1": 80, "support-v2": 20}


def test_immediate_promotion_skips_the_steps_but_not_readiness() -> None:
    world = serving(strategy={"promotion": "Immediate", "steps": []})
    world.engines[1].broken = {adapter_of("support-v2")}
    world.ask_for("support-v2").run(5)
    assert world.shares == {"support-v1": 100}
    world.engines[1].broken = set()
    world.run(5)
    assert weights(world) == [{"support-v1": 100}, {"support-v2": 100}]


def test_nobody_watches_then_the_lease_runs_out_and_the_step_begins_again() -> None:
    world = walking()
    lease = world.table.candidate.valid_until  # type: ignore[union-attr]
    assert lease
    held = world.seen.candidate.step_started_at  # type: ignore[union-attr]
    for _ in range(100):  # the operator is gone; users and routers go on
        world.now += timedelta(seconds=1)
        world._send_requests(1)
    world.measured.clear()
    world.run(3)
    candidate = world.seen.candidate
    assert candidate
    assert candidate.valid_until
    assert candidate.valid_until > lease
    assert candidate.step_started_at != held
    assert candidate.held_seconds == 0


def test_the_lease_is_renewed_while_somebody_watches() -> None:
    world = walking(strategy=make_spec("x")["strategy"] | {"promotion": "Manual"})
    for _ in range(200):
        world.tick()
        assert world.table
        assert world.table.candidate
        left = (parse_time(world.table.candidate.valid_until or "") - world.now).total_seconds()
        assert 29 <= left <= 60


def test_production_that_degrades_is_told_and_left_alone() -> None:
    world = serving()
    world.traffic["support-v1"] = Traffic(failing=1.0)
    world.run(700)
    degraded = [message for reason, message in world.events if reason == "ProductionDegraded"]
    assert len(degraded) == 1
    assert degraded[0].startswith("support-v1 on production: errors: ")
    assert world.shares == {"support-v1": 100}


@pytest.mark.parametrize(
    ("versions", "reason", "says"),
    [
        pytest.param({"support-v9": None}, "WaitingForVersion", "does not exist", id="missing"),
        pytest.param(
            {"support-v9": make_version("support-v9", verified=None)}, "WaitingForVersion", "not verified yet", id="new"
        ),
        pytest.param(
            {"support-v9": make_version("support-v9", verified="False")},
            "VersionUnusable",
            "failed verification",
            id="bad",
        ),
        pytest.param(
            {"support-v9": make_version("support-v9", base="s3://models/base/other")},
            "VersionUnusable",
            "spec.serving.base",
            id="another base model",
        ),
    ],
)
def test_what_cannot_serve_gets_no_traffic_and_says_why(versions: dict[str, Any], reason: str, says: str) -> None:
    world = serving()
    world.versions |= {name: version for name, version in versions.items() if version}
    world.ask_for("support-v9").run(20)
    assert world.condition("Ready") == ("False", reason)
    assert says in world.seen.message
    assert (world.shares, world.seen.candidate) == ({"support-v1": 100}, None)


def test_a_version_that_is_verified_later_walks_then() -> None:
    world = serving()
    world.versions["support-v2"] = make_version("support-v2", verified=None)
    world.ask_for("support-v2").run(20)
    world.versions["support-v2"] = make_version("support-v2")
    world.run_until(lambda w: w.seen.phase == "Healthy")
    assert world.shares == {"support-v2": 100}


def test_a_version_deleted_while_it_is_stable_goes_on_serving() -> None:
    world = serving()
    del world.versions["support-v1"]
    world.run(10)
    assert world.shares == {"support-v1": 100}
    assert world.condition("Ready") == ("False", "WaitingForVersion")
    assert world.condition("Available") == ("True", "Serving")


@pytest.mark.parametrize("key", ["routes.json", "adapters.json"])
@pytest.mark.parametrize("text", ["{", '{"version": 2}'], ids=["no JSON", "of another operator"])
def test_a_table_that_nobody_can_read_is_written_anew(key: str, text: str) -> None:
    world = walking()
    generation = world.seen.route_generation
    world.children["ConfigMap", "support-serving"]["data"][key] = text
    world.reconcile()
    assert world.table
    assert world.adapters
    assert world.table.generation >= generation
    assert (world.table.generation > generation) == (key == "routes.json")
    assert world.table.generation == world.seen.route_generation
    world.run_until(lambda w: w.seen.phase == "Healthy")
    assert world.shares == {"support-v2": 100}


def test_the_younger_of_two_rollouts_of_a_model_does_nothing() -> None:
    older = World().observe().rollout
    world = World()
    world.metadata = world.metadata | {
        "name": "support-too",
        "uid": "uid-2",
        "creationTimestamp": "2026-01-31T11:59:30Z",
    }
    world.siblings = (older,)
    plan = world.reconcile()
    assert (plan.apply, world.writes) == ((), 1)
    assert world.condition("Stalled") == ("True", "DuplicateModel")
    assert "Rollout support serves the model support" in world.seen.message


def test_engines_that_are_gone_make_it_degraded_and_not_ready() -> None:
    world = serving()
    for engine in world.engines:
        engine.answers = engine.ready = False
    world.run(3)
    assert (world.seen.phase, world.condition("Available")) == ("Degraded", ("False", "NotServing"))
    assert world.seen.candidate is None


def test_a_walk_goes_no_further_while_a_replica_is_missing() -> None:
    world = walking()
    world.engines[0].answers = False
    world.run(120)
    assert world.seen.step == "1/3"
    assert world.seen.candidate.state is CandidateState.WALKING  # type: ignore[union-attr]
    assert world.condition("RollbackReady") == ("False", "RollbackNotReady")
    world.engines[0].answers = True
    world.run_until(lambda w: w.seen.phase == "Healthy")
