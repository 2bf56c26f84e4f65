"""Progress that training pods report, newest per job."""

import asyncio
from datetime import datetime
from typing import Final

from tuningfork.api.jobfile import ProgressReport
from tuningfork.control.controller import Key
from tuningfork.control.queue import WorkQueue

ENQUEUE_SECONDS: Final = 1.0
"""A job is looked at again at most this often because of reports; each look may write its status."""


class ProgressBoard:
    """The newest report of each job. Controllers read it; the intake writes it."""

    def __init__(self, queue: WorkQueue[Key]) -> None:
        self._queue = queue
        self._reports: dict[tuple[str, str], tuple[ProgressReport, datetime]] = {}
        self._enqueued: dict[tuple[str, str], float] = {}

    def latest(self, namespace: str, job: str) -> tuple[ProgressReport, datetime] | None:
        return self._reports.get((namespace, job))

    def put(self, report: ProgressReport, at: datetime) -> None:
        name = (report.namespace, report.job)
        self._reports[name] = (report, at)
        now = asyncio.get_running_loop().time()
        due = max(now, self._enqueued.get(name, float("-inf")) + ENQUEUE_SECONDS)
        self._enqueued[name] = due
        self._queue.add_after(Key("FineTuneJob", *name), due - now)

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._reports.pop((key.namespace, key.name), None)
        self._enqueued.pop((key.namespace, key.name), None)
