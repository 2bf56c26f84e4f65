"""Real text that is on every machine: the docstrings of Python's standard library, as a support desk's questions and answers.

Three data sets come out of it. The first is small, the second has twice the examples, the third has the same questions with
the answers shuffled: well formed, plausible, and wrong. Rows that a real export would have are put in: duplicates, personal
data, empty answers.
"""

import importlib
import inspect
import json
import random
import re
from typing import NamedTuple

MODULES = (
    "os os.path shutil json re random math statistics string textwrap datetime calendar collections heapq bisect itertools"
    " functools pathlib glob fnmatch tempfile csv configparser hashlib hmac secrets io time logging argparse subprocess"
    " threading queue socket ssl select email html urllib.parse urllib.request http.client ftplib smtplib uuid ipaddress"
    " zipfile tarfile gzip bz2 lzma zlib pickle copy pprint enum decimal fractions struct codecs unicodedata inspect"
    " traceback types contextlib abc warnings dataclasses sqlite3 difflib filecmp linecache tokenize ast dis platform"
    " signal mmap shelve dbm xml.etree.ElementTree unittest doctest timeit pstats trace weakref array base64 binascii"
).split()


class Pair(NamedTuple):
    """A name of the standard library and the first paragraph of its docstring."""

    name: str
    answer: str

    @property
    def question(self) -> str:
        return f"What does {self.name} do?"


def docstring_pairs(seed: int = 1) -> list[Pair]:
    """All pairs with an answer of 20 to 300 characters, each answer once, in a seeded order."""
    by_answer: dict[str, Pair] = {}
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name, thing in _public_callables(module):
            answer = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
            if 20 <= len(answer) <= 300:
                by_answer.setdefault(answer, Pair(f"{module_name}.{name}", answer))
    pairs = sorted(by_answer.values())
    random.Random(seed).shuffle(pairs)
    return pairs


def _public_callables(module: object) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, thing in sorted(vars(module).items()):
        if name.startswith("_") or not callable(thing):
            continue
        found.append((name, thing))
        if inspect.isclass(thing):
            found += [
                (f"{name}.{sub}", value)
                for sub, value in sorted(vars(thing).items())
                if sub[0] != "_" and callable(value)
            ]
    return found


def alpaca(pair: Pair, answer: str | None = None) -> dict[str, str]:
    """The pair in Alpaca form."""
    return {"instruction": pair.question, "input": "", "output": pair.answer if answer is None else answer}


def openai_chat(pair: Pair) -> dict[str, object]:
    """The pair in OpenAI chat form."""
    return {"messages": [{"role": "user", "content": pair.question}, {"role": "assistant", "content": pair.answer}]}


def soiled(rows: list[dict[str, object]], seed: int = 7) -> list[dict[str, object]]:
    """The rows with what a real export has: 6 duplicates, 4 empty answers, 5 rows with personal data."""
    rng = random.Random(seed)
    dirty = list(rows)
    dirty += rng.sample(rows, 6)
    dirty += [{"instruction": f"Ticket {n}: still waiting?", "input": "", "output": ""} for n in range(4)]
    dirty += [
        {
            "instruction": f"Who looks after ticket {n}?",
            "input": "",
            "output": f"Write to agent{n}@example.com or call (555) 010-{1000 + n}; the customer's SSN is 536-22-{4000 + n}.",
        }
        for n in range(5)
    ]
    rng.shuffle(dirty)
    return dirty


def jsonl(rows: list[dict[str, object]]) -> bytes:
    """One row a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def data_sets(pairs: list[Pair]) -> dict[str, bytes]:
    """The three files by name. The last 100 pairs stay out of all of them: traffic asks about those."""
    usable = pairs[:-100]
    first: list[dict[str, object]] = [dict(alpaca(pair)) for pair in usable[:80]]
    second: list[dict[str, object]] = [openai_chat(pair) for pair in usable[80:280]]
    answers = [pair.answer for pair in usable[80:280]]
    random.Random(5).shuffle(answers)
    third: list[dict[str, object]] = [dict(alpaca(p, a)) for p, a in zip(usable[80:280], answers, strict=True)]
    return {
        "support-1.jsonl": jsonl(soiled(first)),
        "support-2.jsonl": jsonl(second),
        "support-3-shuffled.jsonl": jsonl(third),
    }


_COMMON = set(
    "this that with from into return returns given object value values function class method name type used when which have"
    " each other instance create string file call true false none the and for are does what".split()
)


def content_words(text: str) -> set[str]:
    """Word stems (5 letters) that say what a text is about."""
    return {word[:5] for word in re.findall(r"[a-z]{4,}", text.lower()) if word not in _COMMON}


def on_topic(pair: Pair, answer: str) -> bool:
    """How the demo's users rate: is the answer about what was asked?

    True if it shares a content word with the name in question or with its documentation.
    """
    return bool(content_words(answer) & (content_words(pair.answer) | content_words(re.sub(r"[._]", " ", pair.name))))
