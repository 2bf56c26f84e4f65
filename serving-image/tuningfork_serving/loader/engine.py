"""The engine beside us, through vLLM's runtime LoRA API."""

from pathlib import Path

import aiohttp


class EngineError(Exception):
    """The engine refused; its own words."""


class EngineAway(Exception):  # noqa: N818 - a state, not a mistake
    """The engine does not answer."""


class EngineClient:
    """Three calls."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url = session, url.rstrip("/")

    async def adapters(self) -> dict[str, str]:
        """What the engine really holds: path by adapter name."""
        try:
            timeout = aiohttp.ClientTimeout(total=5)
            async with self._session.get(f"{self._url}/v1/models", timeout=timeout) as response:
                response.raise_for_status()
                cards = (await response.json())["data"]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
            raise EngineAway(f"{type(error).__name__}: {error}") from error
        return {card["id"]: card.get("root") or "" for card in cards if card.get("parent")}

    async def load(self, name: str, path: Path) -> None:
        await self._post("load_lora_adapter", {"lora_name": name, "lora_path": str(path)})

    async def unload(self, name: str) -> None:
        await self._post("unload_lora_adapter", {"lora_name": name})

    async def _post(self, action: str, body: dict[str, str]) -> None:
        try:
            timeout = aiohttp.ClientTimeout(total=120)
            async with self._session.post(f"{self._url}/v1/{action}", json=body, timeout=timeout) as response:
                if response.status >= 400:
                    raise EngineError(f"the engine answered {response.status}: {(await response.text())[:300]}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineAway(f"{type(error).__name__}: {error}") from error
