"""Text appears as soon as it is certain, and never past a stop string."""

import pytest

from tuningfork_serving.engine.text import TextStream


def decode(ids: list[int]) -> str:
    return bytes(ids).decode(errors="replace")


def run(text: str, *stops: str) -> tuple[list[str], str, bool]:
    stream = TextStream(decode, stops)
    deltas = []
    for byte in text.encode():
        deltas.append(stream.push(byte))
        if stream.stopped:
            break
    return [delta for delta in deltas if delta], stream.finish(), stream.stopped


@pytest.mark.parametrize(
    ("text", "stops", "deltas", "rest", "stopped"),
    [
        pytest.param("abc", [], ["a", "b", "c"], "", False, id="plain text comes token by token"),
        pytest.param("aé", [], ["a", "é"], "", False, id="a character of two tokens comes whole"),
        pytest.param("日本", [], ["日", "本"], "", False, id="characters of three tokens come whole"),
        pytest.param("ab\ncd", ["\n"], ["a", "b"], "", True, id="a stop string ends the text and is not part of it"),
        pytest.param("a<end>b", ["<end>"], ["a"], "", True, id="a stop string over several tokens is held back"),
        pytest.param("a<enx", ["<end>"], ["a", "<enx"], "", False, id="what only began like a stop string comes"),
        pytest.param("a<en", ["<end>"], ["a"], "<en", False, id="and comes at the end when nothing follows"),
        pytest.param("aab", ["ab"], ["a"], "", True, id="overlapping beginnings find the stop string"),
        pytest.param("xyz", ["", "z"], ["x", "y"], "", True, id="an empty stop string is no stop string"),
    ],
)
def test_text(text: str, stops: list[str], deltas: list[str], rest: str, stopped: bool) -> None:
    assert run(text, *stops) == (deltas, rest, stopped)


def test_half_a_character_at_the_end_is_shown_as_such() -> None:
    stream = TextStream(decode)
    assert stream.push("é".encode()[0]) == ""
    assert stream.finish() == "\ufffd"


def test_decoding_does_not_look_at_the_whole_answer_again() -> None:
    longest = 0

    def counting(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    stream = TextStream(counting)
    for byte in b"x" * 200:
        stream.push(byte)
    assert longest <= 3
