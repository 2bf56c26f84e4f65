"""What is done to the text of every turn, and how two examples are recognised as the same.

White space inside a text is never touched: indentation, tables and blank lines carry meaning. Lengths are not judged here either,
since a one-word answer is a good answer to a classification; only the tokeniser's limit counts.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection

from tuningfork.api.finetunejob import PIIKind
from tuningfork_trainer.pii import redact
from tuningfork_trainer.rows import Removal, Removed, Turn

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
"""Control characters but tab and line feed, lone surrogates, byte-order marks."""
_OUTER_BLANK_LINES = re.compile(r"\A(?:[ \t]*\n)+")


def normalise(text: str) -> str:
    """NFC, line feeds, no control characters, no blank lines around it; idempotent."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return _OUTER_BLANK_LINES.sub("", unicodedata.normalize("NFC", text).rstrip())


def clean_turns(turns: list[Turn], kinds: Collection[PIIKind], redacted: Counter[str]) -> list[Turn]:
    """The turns normalised and redacted, system prompt included; an empty system prompt is dropped."""
    cleaned = [{"role": t["role"], "content": redact(normalise(t["content"]), kinds, redacted)} for t in turns]
    return cleaned[1:] if cleaned and cleaned[0] == {"role": "system", "content": ""} else cleaned


def fingerprint(turns: list[Turn]) -> str:
    """Equal for equal conversations only: JSON keeps apart what joined strings would not."""
    return hashlib.sha256(json.dumps(turns, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Duplicates:
    """Remembers the conversations of one run. Cleaning comes first, so that copies which differ in a redacted name are found."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, int]] = {}

    def check(self, key: str, source: str, line: int) -> None:
        """Raises `Removed` for a conversation seen before."""
        first = self._first.setdefault(key, (source, line))
        if first != (source, line):
            raise Removed(Removal.DUPLICATE, f"equals {first[0]} line {first[1]}")
