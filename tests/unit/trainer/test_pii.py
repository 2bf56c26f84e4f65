"""What is personal data and what only looks like it."""

from collections import Counter

import pytest

from tuningfork.api.finetunejob import PIIKind
from tuningfork_trainer.pii import redact

ALL = tuple(PIIKind)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to ann.lee+news@mail.example.co.uk.", "write to [EMAIL]."),
        ("<bob@example.com>, carol_1@example.org!", "<[EMAIL]>, [EMAIL]!"),
        ("call (555) 123-4567 now", "call [PHONE] now"),
        ("call (555)123-4567 now", "call [PHONE] now"),
        ("call 555 123 4567 now", "call [PHONE] now"),
        ("call 555-123-4567.", "call [PHONE]."),
        ("call 555.123.4567", "call [PHONE]"),
        ("call +1 555 123 4567", "call [PHONE]"),
        ("call +1 (555) 123-4567", "call [PHONE]"),
        ("call 1-555-123-4567", "call [PHONE]"),
        ("call +15551234567", "call [PHONE]"),
        ("call +44 20 7946 0958", "call [PHONE]"),
        ("call +49 30 123456", "call [PHONE]"),
        ("call +4915112345678,", "call [PHONE],"),
        ("SSN 123-45-6789.", "SSN [SSN]."),
        ("call 555-123-4567 or 555-123-4568", "call [PHONE] or [PHONE]"),
    ],
)
def test_it_is_replaced(text: str, expected: str) -> None:
    assert redact(text, ALL, Counter()) == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("at 1732450000 and 1732450000123", id="Unix times"),
        pytest.param("ISBN 978-3-16-148410-0", id="ISBN-13"),
        pytest.param("ISBN 9783161484100", id="ISBN-13 in one piece"),
        pytest.param("ISBN 0-306-40615-2 or 0306406152", id="ISBN-10"),
        pytest.param("version 10.0.19041.1234 or 2.13.0", id="versions"),
        pytest.param("from 192.168.100.200", id="an address"),
        pytest.param("on 2024-11-24, 2024-11-24T10:00:00+01:00", id="dates"),
        pytest.param("card 4111 1111 1111 1111", id="a card number"),
        pytest.param("000-12-3456 666-12-3456 900-12-3456", id="areas that were never issued"),
        pytest.param("123-00-4567 123-45-0000", id="groups and serials that were never issued"),
        pytest.param("123-45-67890 and 1123-45-6789", id="longer numbers"),
        pytest.param("commit 1732450000 +0100", id="a time zone"),
        pytest.param("@property\ndef a@b", id="code"),
        pytest.param("x = a +1 2 3", id="sums"),
        pytest.param("3.141592653589793", id="pi"),
        pytest.param("London is at +51.507351", id="a latitude"),
        pytest.param("scores = q@k.transpose(-2, -1)", id="a matrix product"),
        pytest.param("git clone git@github.com:org/repo.git", id="the address of a repository"),
    ],
)
def test_it_is_left_alone(text: str) -> None:
    counts = Counter[str]()
    assert redact(text, ALL, counts) == text
    assert not counts


def test_only_the_kinds_that_were_asked_for_are_replaced_and_counted() -> None:
    counts = Counter[str]()
    text = "a@b.com, a@c.com, 555-123-4567, 123-45-6789"
    assert redact(text, [PIIKind.EMAIL, PIIKind.SSN], counts) == "[EMAIL], [EMAIL], 555-123-4567, [SSN]"
    assert counts == {"Email": 2, "SSN": 1}
