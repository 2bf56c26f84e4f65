"""Waits that say what they wait for, and end."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

SOON = 10.0
"""Seconds in which something that takes milliseconds happens on a busy machine."""


async def eventually(check: Callable[[], Awaitable[T]], *, within: float = SOON, pause: float = 0.05) -> T:
    """The first true value of ``check``; its last value and error are in the failure."""
    started = time.monotonic()
    last: object = None
    while True:
        try:
            value = await check()
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        if time.monotonic() - started > within:
            raise AssertionError(f"not within {within:g} s: {check.__qualname__}, last {last!r}")
        await asyncio.sleep(pause)


async def never(check: Callable[[], Awaitable[object]], *, during: float, pause: float = 0.05) -> None:
    """Fails at the first true value."""
    ends = time.monotonic() + during
    while time.monotonic() < ends:
        value = await check()
        assert not value, f"{check.__qualname__} became {value!r}"
        await asyncio.sleep(pause)
