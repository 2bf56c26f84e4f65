"""Reading, recognising and cleaning rows: nothing is lost, nothing is guessed, nothing is flattened."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuningfork.api.finetunejob import DataFormat, PIIKind, Split
from tuningfork_trainer.cleaning import Duplicates, clean_turns, fingerprint, normalise
from tuningfork_trainer.errors import DataUnusable, TrainerError
from tuningfork_trainer.formats import check_turns, convert
from tuningfork_trainer.rows import Ledger, Removal, Removed, Turn, read_rows
from tuningfork_trainer.splitting import split_examples


def turns(*contents: str, system: str | None = None) -> list[Turn]:
    """A conversation that begins with the user."""
    first = [{"role": "system", "content": system}] if system is not None else []
    return first + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


HELLO = turns("Hello", "Good day")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param({"instruction": "Hello", "output": "Good day"}, (DataFormat.ALPACA, HELLO), id="Alpaca"),
        pytest.param(
            {"instruction": "Add", "input": "1 2", "output": "3", "system": "Be short"},
            (DataFormat.ALPACA, turns("Add\n\n1 2", "3", system="Be short")),
            id="Alpaca with input and system",
        ),
        pytest.param(
            {"instruction": "c", "input": "", "output": "d", "history": [["a", "b"]]},
            (DataFormat.ALPACA, turns("a", "b", "c", "d")),
            id="Alpaca with history",
        ),
        pytest.param(
            {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Good day"}]},
            (DataFormat.SHAREGPT, HELLO),
            id="ShareGPT",
        ),
        pytest.param(
            {"system": "S", "conversations": [{"role": "user", "content": "a"}, {"from": "gpt", "value": "b"}]},
            (DataFormat.SHAREGPT, turns("a", "b", system="S")),
            id="ShareGPT with OpenAI's words",
        ),
        pytest.param(
            {"messages": [message("developer", "S"), *turns("a", "b", "c", "d")]},
            (DataFormat.OPENAI_CHAT, turns("a", "b", "c", "d", system="S")),
            id="OpenAI chat of several turns",
        ),
        pytest.param(
            {"messages": [message("user", [{"type": "text", "text": "a"}]), message("assistant", "b")]},
            (DataFormat.OPENAI_CHAT, turns("a", "b")),
            id="content parts",
        ),
    ],
)
def test_a_row_becomes_a_conversation(row: Any, expected: tuple[DataFormat, list[Turn]]) -> None:
    assert convert(row, DataFormat.AUTO) == expected
    assert convert(row, expected[0]) == expected


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        pytest.param([1], "a row must be an object", id="a list"),
        pytest.param(None, "a row must be an object", id="null"),
        pytest.param({"text": "a"}, "no known format in the keys text", id="unknown keys"),
        pytest.param({"messages": "a"}, "no known format", id="messages that are none"),
        pytest.param({"instruction": 3, "output": "b"}, "instruction must be text, this is int", id="a number"),
        pytest.param({"instruction": "a", "output": None}, "assistant must be text", id="null as answer"),
        pytest.param({"instruction": "a", "output": "b", "history": ["c"]}, "pairs", id="odd history"),
        pytest.param({"instruction": "a", "output": "b", "history": 5}, "pairs", id="a number as history"),
        pytest.param({"messages": ["a"]}, "turn 1 must be an object", id="a turn of text"),
        pytest.param({"messages": [message("tool", "a")]}, "by 'tool'", id="a tool"),
        pytest.param({"messages": [message(["user"], "a")]}, "turn 1 is by", id="a role that is no text"),
        pytest.param({"messages": [message("assistant", "", tool_calls=[1])]}, "calls a tool", id="a tool call"),
        pytest.param({"messages": [message("assistant", "a", weight=0)]}, "weight", id="a weight"),
        pytest.param(
            {"messages": [message("user", [{"type": "image_url", "image_url": {}}])]}, "not text", id="a picture"
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_removed(row: Any, detail: str) -> None:
    with pytest.raises(Removed, match=detail) as removed:
        convert(row, DataFormat.AUTO)
    assert removed.value.reason is Removal.INVALID_ROW


def test_a_declared_format_is_a_promise() -> None:
    with pytest.raises(Removed, match="declared as ShareGPT, but this row is Alpaca"):
        convert({"instruction": "a", "output": "b"}, DataFormat.SHAREGPT)


@pytest.mark.parametrize(
    ("given_turns", "expected"),
    [
        pytest.param(turns("a", "b", "c"), turns("a", "b"), id="a question without an answer at the end"),
        pytest.param(turns("a", "b", system="S"), turns("a", "b", system="S"), id="a system prompt"),
        pytest.param(turns("a"), Removal.EMPTY_ANSWER, id="no answer"),
        pytest.param([], Removal.EMPTY_ANSWER, id="no turn"),
        pytest.param(turns("a", ""), Removal.EMPTY_ANSWER, id="an empty answer"),
        pytest.param(turns("a", "", "c", "d"), Removal.EMPTY_ANSWER, id="an empty answer in the middle"),
        pytest.param(turns("", "b"), Removal.INVALID_ROW, id="an empty question"),
        pytest.param([message("assistant", "b")], Removal.INVALID_ROW, id="an answer first"),
        pytest.param([*turns("a", "b"), message("assistant", "c")], Removal.INVALID_ROW, id="two answers"),
        pytest.param(
            [*turns("a"), message("system", "s"), *turns("a", "b")], Removal.INVALID_ROW, id="a late system prompt"
        ),
    ],
)
def test_turns_alternate_and_end_with_an_answer(given_turns: list[Turn], expected: list[Turn] | Removal) -> None:
    if isinstance(expected, Removal):
        with pytest.raises(Removed) as removed:
            check_turns(given_turns)
        assert removed.value.reason is expected
    else:
        assert check_turns(given_turns) == expected


CODE = "def f(x):\n\n    if x:\n\t\treturn  1   # two  spaces\n\n| a  | b |"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(CODE, CODE, id="code keeps its white space"),
        pytest.param("    indented\n", "    indented", id="indentation of the first line stays"),
        pytest.param("\n \n  a\n\n", "  a", id="blank lines around go"),
        pytest.param("a\r\nb\rc", "a\nb\nc", id="line ends"),
        pytest.param("e\u0301", "\u00e9", id="NFC"),
        pytest.param("a\x00\x07b\ud800\ufeffc", "abc", id="control characters, surrogates, byte-order marks"),
        pytest.param("👩\u200d🔬 क्\u200dष", "👩\u200d🔬 क्\u200dष", id="joiners carry meaning"),
        pytest.param("中文 yes", "中文 yes", id="any script"),
        pytest.param(" \t\n", "", id="nothing but white space"),
    ],
)
def test_normalised(text: str, expected: str) -> None:
    assert normalise(text) == expected


@given(st.text())
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_the_system_prompt_is_cleaned_too_and_an_empty_one_dropped() -> None:
    counts = Counter[str]()
    found = clean_turns(turns("a@b.com?", "yes", system="I am c@d.com"), [PIIKind.EMAIL], counts)
    assert found == turns("[EMAIL]?", "yes", system="I am [EMAIL]")
    assert counts == {"Email": 2}
    assert clean_turns(turns("a", "b", system=" \n"), [], counts) == turns("a", "b")


def test_joined_texts_do_not_collide() -> None:
    assert fingerprint(turns("a|b", "c")) != fingerprint(turns("a", "b|c"))


def test_a_duplicate_names_the_first_and_another_run_knows_nothing_of_it() -> None:
    duplicates = Duplicates()
    duplicates.check("k", "a", 1)
    with pytest.raises(Removed, match="equals a line 1"):
        duplicates.check("k", "b", 7)
    Duplicates().check("k", "b", 7)


@pytest.mark.parametrize(
    ("name", "raw", "values", "removed"),
    [
        pytest.param(
            "a.jsonl", b'{"a":1}\n\n{"a":2}', [(1, {"a": 1}), (3, {"a": 2})], [], id="blank lines are no rows"
        ),
        pytest.param("a.jsonl", b'\xef\xbb\xbf{"a":1}\r\n', [(1, {"a": 1})], [], id="byte-order mark and CRLF"),
        pytest.param("a.jsonl", b'{"a":1\n{"a":2}\n\xff\xfe\n', [(2, {"a": 2})], [1, 3], id="broken lines"),
        pytest.param("a.jsonl", b"[" * 100_000, [], [1], id="nested too deeply"),
        pytest.param("a.json", b'[{"a":1}, {"a":2}]', [(1, {"a": 1}), (2, {"a": 2})], [], id="an array"),
        pytest.param("a.json", b'{"a":1}\n{"a":2}\n', [(1, {"a": 1}), (2, {"a": 2})], [], id="lines in a .json file"),
        pytest.param("a.json", b'{\n"a": 1\n}', [(1, {"a": 1})], [], id="a single object"),
        pytest.param("a.jsonl", '{"a":"\u2028x"}'.encode(), [(1, {"a": "\u2028x"})], [], id="line separators are text"),
    ],
)
def test_a_file_is_read(
    tmp_path: Path, name: str, raw: bytes, values: list[tuple[int, Any]], removed: list[int]
) -> None:
    (tmp_path / name).write_bytes(raw)
    ledger = Ledger()
    rows = list(read_rows("s", tmp_path / name, ledger))
    assert [(row.line, row.value) for row in rows] == values
    assert [row.line for row in ledger.removed] == removed
    assert {row.reason for row in ledger.removed} <= {Removal.INVALID_JSON}
    assert ledger.read == len(values) + len(removed)


def test_the_ledger_notices_a_lost_row() -> None:
    with pytest.raises(TrainerError, match="3 rows read, but 2 kept and 0 removed"):
        Ledger(read=3, kept=2).close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "from"]), inner),
    max_leaves=6,
)
rows_of_any_kind = st.one_of(
    json_values,
    st.fixed_dictionaries({"instruction": json_values, "output": json_values}),
    st.fixed_dictionaries({"messages": st.lists(json_values, max_size=4)}),
    st.fixed_dictionaries({"conversations": json_values, "system": json_values}),
)


@given(rows_of_any_kind)
def test_any_row_is_converted_or_removed_with_a_reason(row: Any) -> None:
    try:
        _, found = convert(json.loads(json.dumps(row)), DataFormat.AUTO)
        checked = check_turns(found)
    except Removed:
        return
    assert checked[-1]["role"] == "assistant"
    assert all(turn["content"] for turn in checked[1:])


shares = st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20)).map(
    lambda parts: Split(**{n: p / sum(parts) for n, p in zip(("train", "validation", "test"), parts, strict=True)})
)


@given(st.sets(st.text(max_size=8), max_size=60).map(sorted), shares)
def test_every_example_lands_in_exactly_one_split(keys: list[str], split: Split) -> None:
    parts = split_examples(keys, split)
    assert sorted(parts.train + parts.validation + parts.test) == list(range(len(keys)))
    if keys:
        assert parts.train
    if len(keys) >= 3:
        assert bool(parts.test) == (split.test > 0)
        assert bool(parts.validation) == (split.validation > 0)


@given(st.sets(st.text(max_size=8), min_size=2, max_size=40).map(sorted), shares, st.randoms())
def test_the_order_of_the_rows_does_not_decide(keys: list[str], split: Split, random: Any) -> None:
    shuffled = random.sample(keys, len(keys))
    first, second = split_examples(keys, split), split_examples(shuffled, split)
    assert {keys[i] for i in first.test} == {shuffled[i] for i in second.test}
    assert {keys[i] for i in first.train} == {shuffled[i] for i in second.train}


def test_another_seed_is_another_split() -> None:
    keys = [str(n) for n in range(100)]
    assert split_examples(keys, Split(seed=1)).test != split_examples(keys, Split(seed=2)).test
    assert [len(part) for part in split_examples(keys, Split())] == [80, 10, 10]


@pytest.mark.parametrize(("count", "sizes"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (5, (3, 1, 1))])
def test_small_sets_keep_a_test_split_first(count: int, sizes: tuple[int, int, int]) -> None:
    parts = split_examples([str(n) for n in range(count)], Split())
    assert (len(parts.train), len(parts.validation), len(parts.test)) == sizes


def test_a_broken_json_array_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": 1},')
    with pytest.raises(DataUnusable, match="support is no JSON"):
        list(read_rows("support", tmp_path / "a.json", Ledger()))
