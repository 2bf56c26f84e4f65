"""Three ways to write an example, and the conversations that they stand for.

A row's format is seen by its own keys, not by the file's name or its first row, so a file that mixes formats loses nothing. What
is in a row but cannot be trained on (tool calls, pictures, weights) removes the row: a conversation with holes teaches nonsense.
"""

from collections.abc import Mapping
from typing import Any

from tuningfork.api.finetunejob import DataFormat
from tuningfork_trainer.rows import Removal, Removed, Turn

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
}
KNOWN = "Alpaca has instruction and output, ShareGPT has conversations, OpenAIChat has messages"


def detect_format(row: Any) -> DataFormat:
    """The format that a row is written in; raises `Removed`."""
    if not isinstance(row, Mapping):
        raise Removed(Removal.INVALID_ROW, f"a row must be an object, this is {type(row).__name__}")
    if isinstance(row.get("messages"), list):
        return DataFormat.OPENAI_CHAT
    if isinstance(row.get("conversations"), list):
        return DataFormat.SHAREGPT
    if "instruction" in row and "output" in row:
        return DataFormat.ALPACA
    keys = ", ".join(sorted(str(key)[:30] for key in row)[:8])
    raise Removed(Removal.INVALID_ROW, f"no known format in the keys {keys or '(none)'}: {KNOWN}")


def convert(row: Any, declared: DataFormat) -> tuple[DataFormat, list[Turn]]:
    """The row's format and its conversation; raises `Removed`."""
    found = detect_format(row)
    if declared not in (DataFormat.AUTO, found):
        raise Removed(Removal.INVALID_ROW, f"the source is declared as {declared}, but this row is {found}")
    turns = _from_alpaca(row) if found is DataFormat.ALPACA else _from_turns(row)
    return found, turns


def check_turns(turns: list[Turn]) -> list[Turn]:
    """The turns up to the last answer, when they can be trained on: [system], then user and assistant in turn.

    Questions after the last answer carry no label and are context for nothing.
    """
    while turns and turns[-1]["role"] != "assistant":
        turns = turns[:-1]
    if not turns:
        raise Removed(Removal.EMPTY_ANSWER, "there is no answer")
    dialogue = turns[1:] if turns[0]["role"] == "system" else turns
    for position, turn in enumerate(dialogue):
        expected = "assistant" if position % 2 else "user"
        if turn["role"] != expected:
            raise Removed(Removal.INVALID_ROW, f"turn {position + 1} is by {turn['role']}, expected {expected}")
        if not turn["content"]:
            reason = Removal.EMPTY_ANSWER if position % 2 else Removal.INVALID_ROW
            raise Removed(reason, f"turn {position + 1}, by {expected}, is empty")
    return turns


def _from_alpaca(row: Mapping[str, Any]) -> list[Turn]:
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise Removed(Removal.INVALID_ROW, "history must be pairs of a question and an answer")
    context = _text(row.get("input") or "", "input")
    question = _text(row["instruction"], "instruction")
    turns = [_turn("system", row["system"])] if row.get("system") else []
    turns += [_turn(role, text) for pair in history for role, text in zip(("user", "assistant"), pair, strict=True)]
    turns.append(_turn("user", f"{question}\n\n{context}" if context.strip() else question))
    return [*turns, _turn("assistant", row["output"])]


def _from_turns(row: Mapping[str, Any]) -> list[Turn]:
    """ShareGPT says from and value, OpenAI role and content; files in the wild mix the two."""
    turns = [_turn("system", row["system"])] if row.get("system") else []
    for number, turn in enumerate(row.get("messages") or row.get("conversations") or [], start=1):
        if not isinstance(turn, Mapping):
            raise Removed(Removal.INVALID_ROW, f"turn {number} must be an object, this is {type(turn).__name__}")
        name = turn.get("role", turn.get("from"))
        role = ROLES.get(name) if isinstance(name, str) else None
        if role is None:
            raise Removed(
                Removal.INVALID_ROW, f"turn {number} is by {str(name)[:30]!r}; only {', '.join(ROLES)} are read"
            )
        if turn.get("tool_calls") or turn.get("function_call"):
            raise Removed(Removal.INVALID_ROW, f"turn {number} calls a tool, which is not supported")
        if turn.get("weight", 1) != 1:
            raise Removed(Removal.INVALID_ROW, f"turn {number} has a weight, which is not supported")
        turns.append(_turn(role, turn.get("content", turn.get("value")) or ""))
    return turns


def _turn(role: str, content: Any) -> Turn:
    if isinstance(content, list):  # OpenAI's content parts
        parts = [part for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        if len(parts) != len(content):
            raise Removed(Removal.INVALID_ROW, f"a turn by {role} has parts that are not text")
        content = "".join(_text(part.get("text"), role) for part in parts)
    return {"role": role, "content": _text(content, role)}


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise Removed(Removal.INVALID_ROW, f"{where} must be text, this is {type(value).__name__}")
    return value
