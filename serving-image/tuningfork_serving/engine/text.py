"""Tokens to text as they come: characters that span tokens, and stop strings that span deltas.

A token may be half a character, so text is held until it decodes cleanly; a stop string may begin in one delta and end in a
later one, so whatever could still become one is held too. Decoding the whole answer at every token would be quadratic.
"""

from collections.abc import Callable, Sequence


class TextStream:
    """The visible text of one answer."""

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = [stop for stop in stops if stop]
        self._ids: list[int] = []
        self._context = 0
        """First token of the decoding window: a few tokens before the new ones, because spaces depend on the neighbour."""
        self._read = 0
        """Tokens whose text is out."""
        self._held = ""
        self.stopped = False
        """A stop string was met; nothing more will come."""

    def push(self, token: int) -> str:
        """The text that became certain with this token."""
        self._ids.append(token)
        known = self._decode(self._ids[self._context : self._read])
        text = self._decode(self._ids[self._context :])
        if len(text) <= len(known) or text.endswith("\ufffd"):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return self._release(text[len(known) :])

    def finish(self) -> str:
        """What was held back when the answer ends without a stop string."""
        if self.stopped:
            return ""
        known = self._decode(self._ids[self._context : self._read])
        rest = self._decode(self._ids[self._context :])[len(known) :]
        text = self._release(rest)
        held, self._held = self._held, ""
        return text + held

    def _release(self, text: str) -> str:
        held = self._held + text
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return held[: min(found)]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that a stop string begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
