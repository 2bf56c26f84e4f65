"""Personal data that patterns can find, replaced by a placeholder that says what stood there.

A named-entity model was rejected: it mislabels, and costs 2.5 ms a document. The patterns are tight on purpose. A telephone
number needs separators or a leading +, because ten bare digits are as often a Unix time, an ISBN or an id; names and addresses
are out of reach of patterns, and nothing here claims otherwise.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection

from tuningfork.api.finetunejob import PIIKind

_EMAIL = re.compile(
    r"(?<![\w.%+-])[\w.%+-]+@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w(-]|:[\w/])"
)
"""Not a matrix product (`q@k.transpose(`), nor the address of a repository (`git@host.org:path`)."""

_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
"""With dashes; areas 000, 666 and 9xx, group 00 and serial 0000 were never issued."""

_BEFORE = r"(?<![\w.+/-])"
_AFTER = r"(?![ .-]?\d|[\w/-])"
_PHONE = re.compile(
    rf"{_BEFORE}(?:"
    r"(?:\+?1[ .-]?)?(?:\([2-9]\d{2}\)[ ]?|[2-9]\d{2}[ .-])\d{3}[ .-]\d{4}"  # North America
    r"|\+1?[2-9]\d{7,13}"  # +CC and digits only (E.164)
    r"|\+[1-9]\d{0,2}(?:[ .-]?\(\d{1,4}\)|[ .-]\d{1,4})(?:[ .-]?\d{2,5}){1,4}"  # +CC in groups
    rf"){_AFTER}"
)


def _is_phone(text: str) -> bool:
    if re.fullmatch(r"\+\d+\.\d+", text):
        return False  # a signed decimal number, such as a latitude
    return 8 <= sum(character.isdigit() for character in text) <= 15


_PATTERNS: dict[PIIKind, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    PIIKind.EMAIL: (_EMAIL, bool),
    PIIKind.SSN: (_SSN, bool),
    PIIKind.PHONE: (_PHONE, _is_phone),
}


def redact(text: str, kinds: Collection[PIIKind], counts: Counter[str]) -> str:
    """The text with each piece of personal data replaced; ``counts`` grows by kind."""
    for kind, (pattern, accept) in _PATTERNS.items():
        if kind not in kinds:
            continue

        def replace(match: re.Match[str], kind: PIIKind = kind, accept: Callable[[str], bool] = accept) -> str:
            if not accept(match.group()):
                return match.group()
            counts[kind] += 1
            return f"[{kind.upper()}]"

        text = pattern.sub(replace, text)
    return text
