"""Completion ids say who answered, cannot be invented, and are rated once."""

from collections.abc import Callable

import pytest

from tuningfork_serving.openai import ApiError
from tuningfork_serving.router import feedback
from tuningfork_serving.router.feedback import Ids, Origin, Ratings, parse_feedback

IDS = Ids.of_rollout("ml", "support", "secret")


@pytest.mark.parametrize("prefix", ["chatcmpl-", "cmpl-"])
@pytest.mark.parametrize(
    "origin",
    [
        Origin("support-v1", "production", "stable"),
        Origin("support-v1", "production", "baseline"),
        Origin("v2", "canary", "candidate"),
        Origin("a" * 50, "staging", "pin"),
        Origin("cmpl-x", "none", "tester"),
    ],
)
def test_an_id_tells_who_answered(prefix: str, origin: Origin) -> None:
    id_ = IDS.make(origin)
    assert IDS.read(prefix + id_) == (origin, id_.rpartition(".")[0])


def test_a_restarted_router_and_another_replica_read_it_too() -> None:
    origin = Origin("v1", "production", "stable")
    found = Ids.of_rollout("ml", "support", "secret").read(f"cmpl-{IDS.make(origin)}")
    assert found
    assert found[0] == origin


def test_the_index_that_vllm_appends_to_completions_is_no_part_of_it() -> None:
    origin = Origin("v1", "production", "stable")
    id_ = IDS.make(origin)
    assert IDS.read(f"cmpl-{id_}-0") == IDS.read(f"cmpl-{id_}") is not None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda id_: id_.replace("v1", "v2"), id="another version"),
        pytest.param(lambda id_: id_.replace(".ps.", ".cc."), id="another slice"),
        pytest.param(lambda id_: id_[:-1] + ("A" if id_[-1] != "A" else "B"), id="another tag"),
        pytest.param(lambda id_: id_.rpartition(".")[0], id="no tag"),
        pytest.param(lambda id_: id_.removeprefix("chatcmpl-"), id="no completion"),
        pytest.param(lambda _: "chatcmpl-abc", id="an engine's own id"),
        pytest.param(lambda _: "", id="nothing"),
    ],
)
def test_an_invented_id_tells_nothing(change: Callable[[str], str]) -> None:
    real = f"chatcmpl-{IDS.make(Origin('v1', 'production', 'stable'))}"
    assert IDS.read(real)
    assert IDS.read(change(real)) is None


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(Ids.of_rollout("ml", "support", "other"), id="another secret"),
        pytest.param(Ids.of_rollout("ml", "sales", "secret"), id="another rollout"),
        pytest.param(Ids.of_rollout("dev", "support", "secret"), id="another namespace"),
    ],
)
def test_ids_of_others_tell_nothing(other: Ids) -> None:
    assert IDS.read(f"cmpl-{other.make(Origin('v1', 'production', 'stable'))}") is None


def test_an_answer_is_rated_once_while_it_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback, "REMEMBERED", 2)
    ratings = Ratings()
    assert [ratings.first(id_) for id_ in ("a", "a", "b", "a", "c", "a")] == [True, False, True, False, True, True]


@pytest.mark.parametrize(
    ("raw", "rating"),
    [
        pytest.param(b'{"id":"x","rating":"up"}', "up", id="up"),
        pytest.param(b'{"id":"x","rating":"down"}', "down", id="down"),
        pytest.param(b'{"id":"x","score":1}', "up", id="score 1"),
        pytest.param(b'{"id":"x","score":0}', "down", id="score 0"),
        pytest.param(b'{"id":"x","score":false}', "down", id="score false"),
        pytest.param(b'{"id":"x","rating":"up","score":0}', "up", id="the rating counts before the score"),
    ],
)
def test_ratings(raw: bytes, rating: str) -> None:
    assert parse_feedback(raw) == ("x", rating)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        pytest.param(b"{", "not JSON", id="not JSON"),
        pytest.param(b"[]", "id must be", id="no object"),
        pytest.param(b'{"rating":"up"}', "id must be", id="no id"),
        pytest.param(b'{"id":"x"}', "give rating", id="no rating"),
        pytest.param(b'{"id":"x","rating":"great"}', "give rating", id="another word"),
        pytest.param(b'{"id":"x","score":0.5}', "give rating", id="half a point"),
        pytest.param(b'{"id":"x","score":[1]}', "give rating", id="a list of points"),
        pytest.param(b'{"id":"x","rating":["up"]}', "give rating", id="a list of ratings"),
    ],
)
def test_what_is_no_rating(raw: bytes, message: str) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        parse_feedback(raw)
    assert caught.value.status == 400
