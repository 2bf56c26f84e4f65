"""Which examples are trained on, watched and tested.

Examples are ranked by a hash of seed and content, and the splits are cut from the ranking: no global generator, the order of the
files does not matter, and counts are exact. Comparing each hash with the share was rejected: it leaves small sets without a test
split by chance. Equal conversations have equal ranks and were removed as duplicates before.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from tuningfork.api.finetunejob import Split


class Assignment(NamedTuple):
    """Positions of the examples by split, each in file order."""

    train: list[int]
    validation: list[int]
    test: list[int]


def split_examples(keys: Sequence[str], split: Split) -> Assignment:
    """Divides examples, named by their fingerprints.

    A split with a share gets at least one example while there are enough: train first, then test, then validation.
    """
    ranked = sorted(range(len(keys)), key=lambda i: hashlib.sha256(f"{split.seed}:{keys[i]}".encode()).digest())
    left = max(0, len(keys) - 1)  # one example stays in train, whatever the shares
    reserved = 1 if split.validation and left > 1 else 0
    test = min(left - reserved, _count(len(keys), split.test))
    validation = min(left - test, _count(len(keys), split.validation))
    return Assignment(
        test=sorted(ranked[:test]),
        validation=sorted(ranked[test : test + validation]),
        train=sorted(ranked[test + validation :]),
    )


def _count(total: int, share: float) -> int:
    return max(1, round(total * share)) if share else 0
