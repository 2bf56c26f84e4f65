"""SIGTERM: at once where nothing would be lost, after the running step and a checkpoint while training."""

import contextlib
import logging
import signal
from collections.abc import Iterator
from types import FrameType

from tuningfork_trainer.errors import Interrupted

log = logging.getLogger(__name__)


class StopRequest:
    """Whether somebody asked this process to end. Ctrl-C counts like SIGTERM; pressed twice it does not wait."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def ignore(self) -> None:
        """From now on the end is decided, and only has to be written down."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal only sets ``requested``; whoever runs inside looks at it. On the way out it is raised."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.requested:
            raise Interrupted

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        impatient = self.requested and number == signal.SIGINT
        self.requested = True
        if not self._deferred or impatient:
            raise Interrupted
        log.info("%s: finishing this step and saving a checkpoint", signal.Signals(number).name)
