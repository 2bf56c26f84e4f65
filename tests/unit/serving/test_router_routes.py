"""The table in force: who gets which lane, what a lease does, and what the router says of itself."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tuningfork.api.routes import RouterState, RouteTable
from tuningfork_serving.openai import ApiError
from tuningfork_serving.router.routes import Lane, Routes

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
Build = Callable[..., RouteTable]


@pytest.fixture
def walking(table: Build, lane_target: Callable[..., dict[str, Any]]) -> Routes:
    """v1 stable, v2 candidate on staging with 20 % until one minute from now, v3 pinned on canary with 10 %."""
    candidate = lane_target(
        "v2", track="staging", weight=20, baseline_weight=20, salt="c", valid_until="2026-03-01T12:01:00Z"
    )
    return Routes(
        table(
            generation=7,
            candidate=candidate,
            pins=[lane_target("v3", track="canary", weight=10, salt="p")],
            testers={"staging": lane_target("v2"), "v0": lane_target("v0")},
        )
    )


def names(lane: Lane) -> tuple[str, str, str]:
    return lane.target.version, str(lane.track), str(lane.slice)


def shares(routes: Routes, now: datetime, users: int = 4000) -> dict[tuple[str, str, str], float]:
    counts: dict[tuple[str, str, str], int] = {}
    for n in range(users):
        key = names(routes.lane("support", f"user-{n}", now))
        counts[key] = counts.get(key, 0) + 1
    return {key: count / users for key, count in counts.items()}


def test_users_are_split_by_weight(walking: Routes) -> None:
    rest = 0.9  # the pin's users are chosen first
    assert shares(walking, NOW) == pytest.approx(
        {
            ("v3", "canary", "pin"): 0.1,
            ("v2", "staging", "candidate"): 0.2 * rest,
            ("v1", "production", "baseline"): 0.2 * rest,
            ("v1", "production", "stable"): 0.6 * rest,
        },
        abs=0.02,
    )


def test_a_user_stays_on_their_lane(walking: Routes) -> None:
    lanes = [{walking.lane("support", f"user-{n}", NOW) for _ in range(3)} for n in range(50)]
    assert all(len(each) == 1 for each in lanes)


def test_requests_without_a_user_are_split_one_by_one(walking: Routes) -> None:
    assert len({names(walking.lane("support", None, NOW)) for _ in range(300)}) == 4


def test_when_the_lease_runs_out_the_candidate_and_its_baseline_go_to_stable(walking: Routes) -> None:
    later = NOW + timedelta(minutes=1)
    assert shares(walking, later).keys() == {("v3", "canary", "pin"), ("v1", "production", "stable")}
    assert walking.state(later) == RouterState(generation=7, effective={"v1": 90, "v2": 0, "v3": 10})


def test_the_state_says_the_weights_in_force(walking: Routes) -> None:
    assert walking.state(NOW) == RouterState(generation=7, effective={"v1": 70, "v2": 20, "v3": 10})
    assert walking.weights(NOW) == {("v3", "canary"): 10, ("v2", "staging"): 20, ("v1", "production"): 70}


def test_a_version_in_two_roles_has_both_shares(table: Build, lane_target: Callable[..., dict[str, Any]]) -> None:
    merged = table(
        candidate=lane_target("v2", track="staging", weight=20, salt="c"),
        pins=[lane_target("v2", track="staging", weight=5, salt="p")],
    )
    assert Routes(merged).weights(NOW) == {("v2", "staging"): 25, ("v1", "production"): 75}


@pytest.mark.parametrize(
    ("model", "lane"),
    [
        pytest.param("support@staging", ("v2", "staging", "tester"), id="a track"),
        pytest.param("support@v0", ("v0", "none", "tester"), id="a version that is on no track"),
    ],
)
def test_a_tester_names_a_version(walking: Routes, model: str, lane: tuple[str, str, str]) -> None:
    assert names(walking.lane(model, "anybody", NOW + timedelta(hours=1))) == lane


@pytest.mark.parametrize("model", ["", "gpt-4", "support@", "support@nobody", "v2-adapter", "base", "other@staging"])
def test_any_other_model_does_not_exist(walking: Routes, model: str) -> None:
    with pytest.raises(ApiError) as caught:
        walking.lane(model, "user", NOW)
    assert caught.value.status == 404
    assert caught.value.body == {
        "error": {
            "message": f"The model `{model}` does not exist; this endpoint serves `support`.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_before_the_first_stable_version_nobody_is_served(table: Build) -> None:
    with pytest.raises(ApiError, match="no stable version yet") as caught:
        Routes(table(stable=None)).lane("support", "user", NOW)
    assert caught.value.status == 503


def test_only_candidates_and_pins_fall_back_to_stable(walking: Routes) -> None:
    found = {names(lane): walking.fallback(lane) for lane in walking.lanes()}
    assert {key: lane and names(lane) for key, lane in found.items()} == {
        ("v1", "production", "stable"): None,
        ("v1", "production", "baseline"): None,
        ("v3", "canary", "pin"): ("v1", "production", "stable"),
        ("v2", "staging", "candidate"): ("v1", "production", "stable"),
    }
    assert walking.fallback(walking.lane("support@staging", None, NOW)) is None


def test_explain_says_where_a_user_is_and_why(walking: Routes) -> None:
    told = walking.explain("user-1", NOW)
    lane = walking.lane("support", "user-1", NOW)
    assert (told["version"], told["track"], told["slice"]) == names(lane)
    assert told["buckets"].keys() == {"canary", "candidate"}
    assert (told["generation"], told["candidateValid"]) == (7, True)
