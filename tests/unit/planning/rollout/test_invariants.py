"""What holds whatever happens: shares are whole, nobody flaps, a converged object is left alone, a kill changes nothing."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from support.rollout_world import FEEDBACK, Traffic, World, serving
from tuningfork.api.rollout import Slice
from tuningfork.api.routes import assign

VERSIONS = ("support-v1", "support-v2", "support-v3")
USERS = [f"user-{n}" for n in range(200)]


class Anything(RuleBasedStateMachine):
    """People, pods and Prometheus do anything in any order; `World.check` asserts after every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.world = serving()

    @rule(version=st.sampled_from(VERSIONS))
    def ask(self, version: str) -> None:
        self.world.ask_for(version)

    @rule(version=st.sampled_from(VERSIONS), weight=st.integers(0, 20))
    def pin(self, version: str, weight: int) -> None:
        self.world.edit(lambda spec: spec["tracks"].update(staging={"version": version, "weight": weight}))

    @rule(verb=st.sampled_from(["promote", "promote-full", "abort", "retry"]), version=st.sampled_from(VERSIONS))
    def command(self, verb: str, version: str) -> None:
        self.world.command(verb, version)

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.world.edit(lambda spec: spec.update(paused=paused))

    @rule(version=st.sampled_from(VERSIONS), bad=st.sampled_from([0.1, 0.9]))
    def users_change_their_mind(self, version: str, bad: float) -> None:
        self.world.traffic[version] = Traffic(bad=bad)

    @rule(answers=st.booleans())
    def prometheus(self, answers: bool) -> None:
        self.world.prometheus_answers = answers

    @rule(follow=st.booleans())
    def routers(self, follow: bool) -> None:
        self.world.routers_follow = follow

    @rule(index=st.integers(0, 1), answers=st.booleans())
    def engine(self, index: int, answers: bool) -> None:
        self.world.engines[index].answers = answers

    @precondition(lambda self: self.world.now)
    @rule(duration=st.integers(1, 40))
    def wait(self, duration: int) -> None:
        self.world.run(duration)

    @rule()
    def operator_restarts(self) -> None:
        self.world.measured.clear()
        self.world.reconcile()

    @invariant()
    def a_failed_or_aborted_version_has_no_share(self) -> None:
        world = self.world
        failed = {f.version for f in world.seen.failed if f.hash == world.seen.failed[-1].hash}
        walking = world.seen.candidate.version if world.seen.candidate else None
        stable = world.seen.stable.version if world.seen.stable else None
        for version in failed - {walking, stable}:
            pinned = {t.version for t in world.seen.tracks if t.slice is Slice.PIN and t.weight}
            assert world.shares.get(version, 0) == 0 or version in pinned, world.describe()


TestAnything = Anything.TestCase
TestAnything.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_nobody_leaves_the_candidate_or_a_pin_because_a_share_grew() -> None:
    world = serving().edit(lambda spec: spec["tracks"].update(canary={"version": "support-v3", "weight": 5}))
    world.run_until(lambda w: w.seen.phase == "Healthy").ask_for("support-v2")
    with_candidate: set[str] = set()
    with_pin: set[str] = set()
    weight = 0
    while world.seen.stable.version == "support-v1":  # type: ignore[union-attr]
        world.tick()
        table = world.table
        assert table
        places = {user: assign(table, user) for user in USERS}
        now = {user for user, place in places.items() if place and place.target.version == "support-v2"}
        pins = {user for user, place in places.items() if place and place.slice is Slice.PIN}
        share = table.candidate.weight if table.candidate else 100
        if share >= weight and not (pins and not with_pin):
            assert with_candidate - pins <= now, world.describe()
        assert not pins or not with_pin or pins == with_pin
        with_candidate, weight, with_pin = now, share, pins or with_pin


def production_fails(world: World) -> World:
    world.traffic["support-v1"] = Traffic(failing=1.0)
    return world.run(700)


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda w: w, id="one version"),
        pytest.param(lambda w: w.ask_for("support-v2").run_until(lambda x: x.seen.phase == "Healthy"), id="promoted"),
        pytest.param(production_fails, id="production is over its limit"),
        pytest.param(lambda w: w.ask_for("support-v2").run(20).command("abort", "support-v2").run(5), id="aborted"),
    ],
)
def test_a_converged_rollout_causes_no_writes(prepare: Callable[[World], World]) -> None:
    world = prepare(serving()).run(30)
    writes = world.writes
    world.run(300)
    assert world.writes == writes


def good(world: World) -> World:
    return world.ask_for("support-v2").run_until(lambda w: w.seen.phase == "Healthy")


def bad(world: World) -> World:
    world.traffic["support-v2"] = Traffic(bad=0.9)
    return world.ask_for("support-v2").run_until(lambda w: w.seen.phase == "Degraded").run(5)


def aborted(world: World) -> World:
    return world.ask_for("support-v2").run(25).command("abort", "support-v2").run(10)


@pytest.mark.parametrize("story", [good, bad, aborted])
def test_killed_before_any_write_the_end_is_the_same(story: Callable[[World], World]) -> None:
    undisturbed = story(serving())
    quiet = serving().writes
    for index in range(undisturbed.writes - quiet):
        world = serving()
        end = world.writes + index
        died: list[str] = []

        def die(write: str, world: World = world, end: int = end, died: list[str] = died) -> bool:
            if not died and world.writes >= end:
                died.append(write)
                return True
            return False

        world.die_before = die
        story(world)
        assert world.splits == undisturbed.splits, died
        assert [h.weights for h in world.seen.history] == [h.weights for h in undisturbed.seen.history], died
        assert [(f.version, f.reason) for f in world.seen.failed] == [
            (f.version, f.reason) for f in undisturbed.seen.failed
        ]


def test_a_kill_between_taking_weight_back_and_noting_it_never_gives_it_again() -> None:
    """The routes say 0, status still says 20 %, the restarted operator has measured nothing yet."""
    world = serving(analysis={"interval": "5s", "metrics": [FEEDBACK]})
    world.traffic["support-v2"] = Traffic(bad=0.9)
    world.ask_for("support-v2").run_until(lambda w: w.shares.get("support-v2") == 20)
    world.die_before = lambda write: write == "status" and world.shares == {"support-v1": 100}
    world.run_until(lambda w: bool(w.seen.failed))
    assert world.splits == [{"support-v1": 100}, {"support-v1": 80, "support-v2": 20}, {"support-v1": 100}]
