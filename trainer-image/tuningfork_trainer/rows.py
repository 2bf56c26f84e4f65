"""Rows of a .jsonl or .json file, and the ledger in which each of them ends exactly once: kept, or removed for one reason."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from tuningfork_trainer.errors import DataUnusable, TrainerError

Turn = dict[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``, as chat templates take it."""


class Removal(StrEnum):
    """Why a row is not trained on; a reason never holds numbers, so that a count by reason is short."""

    INVALID_JSON = "InvalidJSON"
    INVALID_ROW = "InvalidRow"
    EMPTY_ANSWER = "EmptyAnswer"
    DUPLICATE = "Duplicate"
    SPECIAL_TOKEN = "SpecialToken"  # noqa: S105 - a reason, not a password
    TEMPLATE_MISMATCH = "TemplateMismatch"
    TOO_LONG = "TooLong"


class Removed(Exception):  # noqa: N818 - the end of a row, not of the run
    """Ends the way of one row."""

    def __init__(self, reason: Removal, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


class Row(NamedTuple):
    """A row as it stands in its file."""

    source: str
    line: int
    """From 1; in a .json array the number of the element."""
    value: Any


class RemovedRow(NamedTuple):
    """An entry of the ledger; never content, which may be private."""

    source: str
    line: int
    reason: Removal
    detail: str


@dataclass
class Ledger:
    """Counts what was read, kept and removed; `close` proves that no row was lost."""

    read: int = 0
    kept: int = 0
    removed: list[RemovedRow] = field(default_factory=list)

    def remove(self, source: str, line: int, cause: Removed) -> None:
        self.removed.append(RemovedRow(source, line, cause.reason, cause.detail))

    def by_reason(self) -> dict[str, int]:
        return dict(sorted(Counter(str(row.reason) for row in self.removed).items()))

    def close(self) -> None:
        if self.read != self.kept + len(self.removed):
            raise TrainerError(
                f"data: {self.read} rows read, but {self.kept} kept and {len(self.removed)} removed; this is a bug"
            )


def read_rows(name: str, path: Path, ledger: Ledger) -> Iterator[Row]:
    """Every row of a source. A line that is no JSON goes into the ledger; blank lines are no rows."""
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if path.suffix == ".json" and (array := _parse_array(name, raw)) is not None:
        for number, value in enumerate(array, start=1):
            ledger.read += 1
            yield Row(name, number, value)
        return
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        ledger.read += 1
        try:
            yield Row(name, number, json.loads(line))
        except UnicodeDecodeError:
            ledger.remove(name, number, Removed(Removal.INVALID_JSON, "not UTF-8"))
        except json.JSONDecodeError as error:
            ledger.remove(name, number, Removed(Removal.INVALID_JSON, f"{error.msg} at column {error.colno}"))
        except RecursionError:
            ledger.remove(name, number, Removed(Removal.INVALID_JSON, "nested too deeply"))
        except ValueError as error:  # an integer of thousands of digits
            ledger.remove(name, number, Removed(Removal.INVALID_JSON, str(error)[:100]))


def _parse_array(name: str, raw: bytes) -> list[Any] | None:
    """The array of a .json file; None when it is JSON lines by another name."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        if raw.lstrip()[:1] != b"[":
            return None
        raise DataUnusable(
            f"spec.data.sources: {name} is no JSON: {error}; fix the file, or write one row a line"
        ) from error
    return value if isinstance(value, list) else [value]
