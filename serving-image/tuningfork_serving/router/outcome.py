"""The record of one request on one lane: opened before the engine is asked, closed when the last byte is out or nobody wants it.

Counting when the answer begins, as most proxies do, calls a stream that broke in the middle a success, and a client that lost patience
a failure of the model.
"""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from tuningfork_serving.router.answer import Tokens
from tuningfork_serving.router.metrics import Labels, Outcome, RouterMetrics

logger = logging.getLogger("tuningfork.router")


class ClientGone(Exception):  # noqa: N818 - a state of theirs, not a mistake of ours
    """The client closed the connection."""


class Failed(Exception):  # noqa: N818 - carries the outcome
    """The engine's side failed."""

    def __init__(self, outcome: Outcome, cause: str) -> None:
        super().__init__(cause)
        self.outcome = outcome


class Record:
    """A context manager around all that happens for a request; leaving it counts the outcome."""

    def __init__(self, metrics: RouterMetrics, lane: Labels) -> None:
        self._metrics, self.lane = metrics, lane
        self._started = time.monotonic()
        self._waited = 0.0
        self._first: float | None = None
        self._last: float | None = None
        self.outcome: Outcome | None = None
        self.tokens: Tokens | None = None

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        now = time.monotonic()
        outcome, duration = self.outcome or _outcome_of(error), now - self._started
        self._metrics.count(self.lane, outcome, duration, max(0.0, duration - self._waited), now)
        if self.tokens:
            self._metrics.count_tokens(self.lane, *self.tokens)
        if self._first is not None and self._last is not None:
            self._metrics.observe_stream(self.lane, self._first - self._started, self._per_token())
        if error is not None and outcome is not Outcome.CLIENT_ABORT:
            self._log(outcome, str(error))

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Around everything that waits for the engine or the client: it is not our overhead."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - began

    def fail(self, failure: Failed) -> None:
        """The client knows of the failure already: its stream said so."""
        self.outcome = failure.outcome
        self._log(failure.outcome, str(failure))

    def _log(self, outcome: Outcome, cause: str) -> None:
        lane = self.lane
        logger.warning("%s on %s/%s (%s): %s", outcome, lane.model_version, lane.track, lane.slice, cause)

    def retried(self) -> None:
        self._metrics.count_retry(self.lane)

    def saw_event(self) -> None:
        """An event of a stream went to the client."""
        self._last = time.monotonic()
        self._first = self._first or self._last

    def _per_token(self) -> float | None:
        if not self.tokens or self.tokens.completion < 2 or self._first is None or self._last is None:
            return None
        return (self._last - self._first) / (self.tokens.completion - 1)


def _outcome_of(error: BaseException | None) -> Outcome:
    if error is None:
        return Outcome.OK
    if isinstance(error, Failed):
        return error.outcome
    if isinstance(error, ClientGone | asyncio.CancelledError):
        return Outcome.CLIENT_ABORT
    return Outcome.UPSTREAM_ERROR


def outcome_of_status(status: int) -> Outcome:
    """What the engine's final answer says. That it does not know our adapter or path is not the client's mistake."""
    if status < 400:
        return Outcome.OK
    if status == 429:
        return Outcome.REJECTED
    return Outcome.UPSTREAM_ERROR if status >= 500 or status in (401, 403, 404, 405) else Outcome.CLIENT_ERROR
