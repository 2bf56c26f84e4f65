"""An event loop whose clock jumps to the next timer instead of waiting for it: hours pass in milliseconds, and exactly."""

import asyncio
import selectors
from collections.abc import Mapping

FOREVER = 5.0
"""Real seconds that a loop with nothing scheduled waits for the outside (threads, sockets)."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """`time` starts at 0."""

    def __init__(self) -> None:
        self._simulated = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._simulated

    def jump(self, seconds: float) -> None:
        self._simulated += seconds


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            events = super().select(FOREVER)
            if not events:
                raise RuntimeError("nothing is scheduled and nothing comes: the test would wait for ever")
            return events
        events = super().select(0)
        if not events and timeout > 0:
            self._loop.jump(timeout)
        return events


def pytest_asyncio_loop_factories() -> Mapping[str, type[asyncio.AbstractEventLoop]]:
    """Imported by a conftest, this gives its tests simulated time."""
    return {"simulated": SimulatedLoop}
