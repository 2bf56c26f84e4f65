"""What the serving pods say of themselves: loaders which adapters their engine holds, routers which routes they have.

A pod that does not answer is None and no error: pods start and go, and an error would make everybody wait for the runtime's backoff.
All pods of a Rollout are one reading, so that a thousand engines are one answer to keep.
"""

import asyncio
from collections.abc import Mapping
from typing import Final, TypeVar

import aiohttp
from pydantic import ValidationError

from tuningfork.api import ApiModel
from tuningfork.api.routes import LOADER_PORT, ROUTER_PORT, LoaderState, RouterState

T = TypeVar("T", bound=ApiModel)

POD_SECONDS: Final = 2.0
"""A pod that takes longer to say what it holds counts as silent."""

AT_ONCE: Final = 32
"""Pods asked at the same time."""


async def read_loaders(addresses: Mapping[str, str]) -> dict[str, LoaderState | None]:
    """By uid, from pod addresses by uid."""
    return await _read_all(addresses, LOADER_PORT, "/adapters", LoaderState)


async def read_routers(addresses: Mapping[str, str]) -> dict[str, RouterState | None]:
    """By uid, from pod addresses by uid."""
    return await _read_all(addresses, ROUTER_PORT, "/-/routes", RouterState)


async def _read_all(addresses: Mapping[str, str], port: int, path: str, model: type[T]) -> dict[str, T | None]:
    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=POD_SECONDS, sock_read=POD_SECONDS)
    async with aiohttp.ClientSession(trust_env=False, connector=connector, timeout=timeout) as session:
        states = await asyncio.gather(
            *(_read(session, f"http://{_host(address)}:{port}{path}", model) for address in addresses.values())
        )
    return dict(zip(addresses, states, strict=True))


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


async def _read(session: aiohttp.ClientSession, url: str, model: type[T]) -> T | None:
    try:
        async with session.get(url) as response:
            return model.model_validate_json(await response.read()) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValidationError):
        return None
