"""Examples as tensors. Padding is masked by length and never by token id, because several models pad with their stop token."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from tuningfork_trainer.chat import Encoded

IGNORED = -100
"""Label of a position that has no loss; the value that cross entropy in torch skips."""


def labels_of(example: Encoded) -> list[int]:
    """The tokens of the answers, and `IGNORED` elsewhere."""
    labels = [IGNORED] * len(example.ids)
    for start, end in example.answers:
        labels[start:end] = example.ids[start:end]
    return labels


class Collator:
    """Pads a batch on the right."""

    def __init__(self, pad_id: int):
        self._pad_id = pad_id

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)

        def pad(values: list[int], filler: int) -> list[int]:
            return values + [filler] * (longest - len(values))

        return {
            "input_ids": torch.tensor([pad(row["input_ids"], self._pad_id) for row in rows]),
            "attention_mask": torch.tensor([pad([1] * len(row["input_ids"]), 0) for row in rows]),
            "labels": torch.tensor([pad(row["labels"], IGNORED) for row in rows]),
        }


def as_row(example: Encoded) -> dict[str, list[int]]:
    """What `Collator` takes."""
    return {"input_ids": example.ids, "labels": labels_of(example)}


def by_length(examples: Sequence[Encoded], token_budget: int) -> Iterator[list[Encoded]]:
    """Batches of similar length with at most ``token_budget`` tokens, padding included; at least one example each."""
    batch: list[Encoded] = []
    for example in sorted(examples, key=lambda e: len(e.ids)):
        if batch and len(example.ids) * (len(batch) + 1) > token_budget:
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch
