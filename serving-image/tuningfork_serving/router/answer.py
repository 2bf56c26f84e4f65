"""What the router reads of an answer and changes in it: the model's name, the usage, the end. Pure, and no JSON is parsed twice.

The name is replaced in the bytes: inside a string value the quotes are escaped, so `"model":"x"` can only be the field itself.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Tokens(NamedTuple):
    """The usage that the engine reported."""

    prompt: int
    completion: int


class Renaming:
    """Adapter name back to public name."""

    def __init__(self, adapter: str, public: str) -> None:
        self._pairs = [
            (f'"model":{gap}{json.dumps(adapter)}'.encode(), f'"model":{gap}{json.dumps(public)}'.encode())
            for gap in ("", " ")
        ]

    def __call__(self, body: bytes) -> bytes:
        for adapter, public in self._pairs:
            if adapter in body:
                return body.replace(adapter, public, 1)
        return body


def read_usage(body: Any) -> Tokens | None:
    """The usage of a parsed answer or event."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return None
    return Tokens(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))


@dataclass
class EventStream:
    """A stream of server-sent events on its way to the client."""

    rename: Renaming
    wants_usage: bool
    tokens: Tokens | None = None
    done: bool = False
    """`data: [DONE]` came: the stream is whole."""
    error: str | None = None
    """The engine's error event, cut."""
    _rest: bytes = field(default=b"", init=False)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The complete events of the bytes so far, as the client shall see them."""
        *events, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in events:
            shown = self._pass(event)
            if shown is not None:
                yield shown + b"\n\n"

    def _pass(self, event: bytes) -> bytes | None:
        data = event.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            self.done = True
        elif data.startswith(b'{"error"'):
            self.error = data[:300].decode(errors="replace")
        elif b'"usage":' in data and b'"usage":null' not in data and b'"usage": null' not in data:
            body = _parsed(data)
            self.tokens = read_usage(body) or self.tokens
            if not self.wants_usage and isinstance(body, dict) and body.get("choices") == []:
                return None
        return self.rename(event)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
