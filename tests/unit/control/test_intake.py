"""Who may report what, and how often it is looked at."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from support.memory_api import MemoryApi
from tuningfork.api.jobfile import ProgressReport
from tuningfork.control.controller import Key
from tuningfork.control.intake import PodIdentity, ProgressBoard, Tokens, read_review, refusal
from tuningfork.control.queue import WorkQueue
from tuningfork.control.store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB = Key("FineTuneJob", "ml", "a")
POD = PodIdentity("ml", "a-train-1-x", "uid-1")


def report(step: int = 1, *, namespace: str = "ml", job: str = "a", attempt: int = 1) -> ProgressReport:
    return ProgressReport(namespace=namespace, job=job, attempt=attempt, stage="train", step=step)


def review(**changes: Any) -> dict[str, Any]:
    extra = {
        "authentication.kubernetes.io/pod-name": ["a-train-1-x"],
        "authentication.kubernetes.io/pod-uid": ["uid-1"],
    }
    user = {"username": "system:serviceaccount:ml:default", "extra": extra}
    return {"authenticated": True, "audiences": ["tuningfork-intake"], "user": user} | changes


@pytest.mark.parametrize(
    ("status", "pod"),
    [
        pytest.param(review(), POD, id="a token of a pod"),
        pytest.param({}, None, id="an invalid token"),
        pytest.param(review(authenticated=False), None, id="an expired token"),
        pytest.param(review(audiences=["https://kubernetes.default.svc"]), None, id="of another audience"),
        pytest.param(review(audiences=None), None, id="of a server that knows no audiences"),
        pytest.param(review(user={"username": "system:serviceaccount:ml:default"}), None, id="of no pod"),
        pytest.param(review(user=review()["user"] | {"username": "admin"}), None, id="of a person"),
    ],
)
def test_whose_token_it_is(status: dict[str, Any], pod: PodIdentity | None) -> None:
    assert read_review(status) == pod


@pytest.mark.parametrize(
    ("said", "pod", "expected"),
    [
        pytest.param(report(), POD, None, id="on its own job and attempt"),
        pytest.param(
            report(job="b"),
            POD,
            "pod ml/a-train-1-x belongs to job a, attempt 1: it cannot report on ml/b, attempt 1",
            id="on another job",
        ),
        pytest.param(
            report(attempt=2),
            POD,
            "pod ml/a-train-1-x belongs to job a, attempt 1: it cannot report on ml/a, attempt 2",
            id="on another attempt",
        ),
        pytest.param(
            report(namespace="other"),
            POD,
            "pod ml/a-train-1-x belongs to job a, attempt 1: it cannot report on other/a, attempt 1",
            id="on the same job of another namespace",
        ),
        pytest.param(report(), POD._replace(uid="uid-0"), "pod ml/a-train-1-x is no training pod", id="after its time"),
        pytest.param(report(), POD._replace(name="web"), "pod ml/web is no training pod", id="as another pod"),
    ],
)
def test_what_a_pod_may_report(said: ProgressReport, pod: PodIdentity, expected: str | None) -> None:
    store = MemoryStore()
    labels = {"tuningfork.dev/job": "a", "tuningfork.dev/attempt": "1"}
    metadata = {"name": POD.name, "namespace": "ml", "uid": "uid-1", "resourceVersion": "1", "labels": labels}
    store.put({"kind": "Pod", "metadata": metadata})
    assert refusal(said, pod, store) == expected


async def test_a_token_is_asked_about_once_a_minute() -> None:
    api = MemoryApi()
    api.fault = lambda method, path: (201, {"status": review()})
    tokens = Tokens(api.client())
    for _ in range(150):
        assert await tokens.pod_of("secret") == POD
        await asyncio.sleep(1)
    assert len(api.requests) == 3
    await tokens.pod_of("another")
    assert len(api.requests) == 4


async def test_a_job_that_reports_all_the_time_is_looked_at_once_a_second() -> None:
    queue = WorkQueue[Key]()
    board = ProgressBoard(queue)
    looks = []
    for step in range(100):
        board.put(report(step), NOW)
        await asyncio.sleep(0.1)
        if len(queue):
            queue.done(await queue.get())
            looks.append(board.latest("ml", "a"))
    assert 10 <= len(looks) <= 11
    assert board.latest("ml", "a") == (report(99), NOW)


async def test_the_last_report_is_looked_at_even_when_none_follows() -> None:
    queue = WorkQueue[Key]()
    board = ProgressBoard(queue)
    board.put(report(1), NOW)
    queue.done(await queue.get())
    board.put(report(2), NOW)
    assert await queue.get() == JOB
    assert asyncio.get_running_loop().time() == pytest.approx(1)


async def test_a_gone_job_leaves_nothing() -> None:
    board = ProgressBoard(WorkQueue[Key]())
    board.put(report(), NOW)
    board.forget(JOB)
    assert board.latest("ml", "a") is None
