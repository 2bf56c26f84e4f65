"""When the controller reads a job's output folder anew."""

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

import pytest

from support.jobs import NOW, SETTINGS, UID, JobWorld, preparing
from tuningfork.control.controller import Key, Reading
from tuningfork.control.finetunejob import FineTuneJobController
from tuningfork.control.intake import ProgressBoard
from tuningfork.control.queue import WorkQueue
from tuningfork.control.store import MemoryStore
from tuningfork.planning.storage import StoredRun

T = TypeVar("T")


class CountingOutside:
    """Answers with the number of the reading; one that is asked for again stays as it was."""

    def __init__(self) -> None:
        self.readings: dict[Hashable, Reading[Any]] = {}

    def latest(
        self, name: Hashable, owner: Key, read: Callable[[], Awaitable[T]], *, max_age: float, timeout: float = 10
    ) -> Reading[T] | None:
        number = str(len(self.readings) + 1)
        return self.readings.setdefault(name, Reading(NOW, value=StoredRun(problem=number)))

    def forget(self, owner: Key) -> None:
        raise AssertionError("the runtime forgets, not the controller")


class Reader:
    """The controller's view of a `JobWorld`, with one memory of readings."""

    def __init__(self) -> None:
        self.outside = CountingOutside()

    def reading(self, world: JobWorld) -> str:
        """The number of the reading that the plan would be made with."""
        store = MemoryStore()
        for child in world.children.values():
            owner = {"uid": UID, "kind": "FineTuneJob", "name": world.name}
            store.put(child | {"metadata": {"resourceVersion": "1", **child["metadata"], "ownerReferences": [owner]}})
        board = ProgressBoard(WorkQueue())
        controller = FineTuneJobController(SETTINGS, store, self.outside, board, ca_pem=lambda: "")
        stored = controller.observe(world.parent).stored
        assert isinstance(stored, StoredRun)
        return stored.problem


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_the_end_of_an_attempt_is_read_once(reader: Reader) -> None:
    world = preparing()
    assert reader.reading(world) == reader.reading(world.pod("Running").step()) == "1"
    assert reader.reading(world.finished(0)) == "2"
    assert reader.reading(world.step()) == "2", "that status tells of the end changes nothing in the store"


def test_a_finished_job_that_somebody_deleted_brings_no_older_reading_back(reader: Reader) -> None:
    world = preparing()
    before = reader.reading(world)
    after = reader.reading(world.finished(0).step())
    assert reader.reading(world.job_deleted()) not in {before, after}


def test_an_attempt_whose_job_vanished_is_read_too(reader: Reader) -> None:
    world = preparing().pod("Running").step()
    before = reader.reading(world)
    assert reader.reading(world.job_deleted().pod_gone().step()) != before
