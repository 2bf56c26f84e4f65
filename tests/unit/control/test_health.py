"""Which loop is stuck, and what the probes say."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from tuningfork.control.health import Heartbeats, build_app
from tuningfork.control.metrics import Metrics


class Clock:
    now = 0.0
    work: AbstractContextManager[None]

    def __call__(self) -> float:
        return self.now


def beats(clock: Clock, heartbeats: Heartbeats) -> None:
    heartbeats.beat("lease", 60)
    clock.now = 59


def overdue(clock: Clock, heartbeats: Heartbeats) -> None:
    heartbeats.beat("lease", 60)
    heartbeats.beat("prune", 900)
    clock.now = 75


def rests(clock: Clock, heartbeats: Heartbeats) -> None:
    with heartbeats.busy("worker 3", 300):
        clock.now = 299
    clock.now = 10_000


def hangs(clock: Clock, heartbeats: Heartbeats) -> None:
    clock.work = heartbeats.busy("worker 3", 300)
    clock.work.__enter__()
    clock.now = 400


@pytest.mark.parametrize(
    ("life", "said"),
    [
        pytest.param(beats, "ok", id="in time"),
        pytest.param(overdue, "lease is 15 s overdue", id="overdue"),
        pytest.param(rests, "ok", id="a worker without work"),
        pytest.param(hangs, "worker 3 is 100 s overdue", id="a worker that hangs"),
    ],
)
async def test_healthz_is_red_when_a_loop_is_stuck(life: Callable[[Clock, Heartbeats], None], said: str) -> None:
    clock = Clock()
    heartbeats = Heartbeats(clock)
    life(clock, heartbeats)
    assert await get("/healthz", heartbeats) == (200 if said == "ok" else 500, said)


@pytest.mark.parametrize(
    ("ready", "answer"), [(True, (200, "ok")), (False, (503, "the objects of the cluster are not read yet"))]
)
async def test_readyz_waits_for_the_store(ready: bool, answer: tuple[int, str]) -> None:
    assert await get("/readyz", Heartbeats(Clock()), ready=ready) == answer


async def get(path: str, heartbeats: Heartbeats, *, ready: bool = True) -> tuple[int, str]:
    request = make_mocked_request("GET", path)
    match = await build_app(heartbeats, lambda: ready, Metrics()).router.resolve(request)
    response = await match.handler(request)
    assert isinstance(response, web.Response)
    return response.status, response.text or ""
