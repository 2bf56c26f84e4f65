"""Labels: exactly the answers with their stop tokens, whatever the template and the padding token."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.tiny_model import CHATML, make_tokenizer
from tuningfork_trainer.batches import IGNORED, Collator, as_row, by_length, labels_of
from tuningfork_trainer.chat import ChatEncoder, Encoded
from tuningfork_trainer.errors import ModelUnusable
from tuningfork_trainer.rows import Removed, Turn

TOKENIZER = make_tokenizer()
STOP = TOKENIZER.eos_token_id
ENCODER = ChatEncoder(TOKENIZER, [STOP], "file:///base")

LAST_ONLY = (
    "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}<|im_start|>assistant\n[cut]<|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system prompt') }}{% endif %}" + CHATML


def conversation(*contents: str, system: str | None = None) -> list[Turn]:
    first = [{"role": "system", "content": system}] if system else []
    return first + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def trained_text(example: Encoded) -> list[str]:
    """What has a label, answer by answer."""
    return [TOKENIZER.decode(example.ids[start:end]) for start, end in example.answers]


def encoder(template: str) -> ChatEncoder:
    return ChatEncoder(make_tokenizer(template), [STOP], "file:///base")


@pytest.mark.parametrize(
    ("turns", "trained"),
    [
        pytest.param(conversation("Hello", "Good day"), ["Good day<|im_end|>"], id="one answer"),
        pytest.param(
            conversation("a", "b", "c", "d e", system="Be short"), ["b<|im_end|>", "d e<|im_end|>"], id="every answer"
        ),
        pytest.param(conversation("a", "    indented"), ["    indented<|im_end|>"], id="white space first"),
        pytest.param(conversation("### Response:", "x\n\ny"), ["x\n\ny<|im_end|>"], id="a marker in the question"),
    ],
)
def test_only_answers_and_their_stop_tokens_are_trained(turns: list[Turn], trained: list[str]) -> None:
    assert trained_text(ENCODER.encode(turns)) == trained


texts = st.text(min_size=1, max_size=30).map(str.strip).filter(lambda text: text and "<|" not in text)


@settings(max_examples=60)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=3), st.none() | texts)
def test_prompts_have_the_tokens_that_an_engine_sees(pairs: list[tuple[str, str]], system: str | None) -> None:
    turns = conversation(*(text for pair in pairs for text in pair), system=system)
    example = ENCODER.encode(turns)
    labels = labels_of(example)
    first = next(i for i, turn in enumerate(turns) if turn["role"] == "assistant")
    prompt = TOKENIZER.apply_chat_template(turns[:first], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert example.ids[: len(prompt)] == prompt
    assert set(labels[: len(prompt)]) == {IGNORED}
    answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    assert trained_text(example) == [f"{answer}<|im_end|>" for answer in answers]
    assert sum(label == STOP for label in labels) == len(answers)
    assert labels[-1] == STOP
    assert all(label in (IGNORED, token) for label, token in zip(labels, example.ids, strict=True))


@pytest.mark.parametrize("answer", ["  two spaces", "\ttab", "\n\nlines"])
def test_an_answer_that_would_merge_with_its_prompt_keeps_the_border(answer: str) -> None:
    turns = conversation("a", answer)
    example = ENCODER.encode(turns)
    prompt = TOKENIZER.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert example.ids[: len(prompt)] == prompt
    assert trained_text(example) == [f"{answer}<|im_end|>"]


@pytest.mark.parametrize("first", ["\n\nIt is red.", "    It is", "\nyes", "It is red."])
@pytest.mark.parametrize("second", ["\n\nIt is blue.", "    no", "It is blue."])
def test_in_several_turns_what_is_trained_is_whole_answers(first: str, second: str) -> None:
    trained = trained_text(ENCODER.encode(conversation("What colour?", first, "And now?", second)))
    assert trained[-1] == second + "<|im_end|>"
    assert set(trained) <= {first + "<|im_end|>", second + "<|im_end|>"}


def test_a_template_that_rewrites_earlier_answers_trains_the_last() -> None:
    example = encoder(LAST_ONLY).encode(conversation("a", "b", "c", "d"))
    assert trained_text(example) == ["d<|im_end|>"]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        pytest.param(None, "no chat template", id="none"),
        pytest.param(CHATML.replace("<|im_end|>", ""), "would never learn to stop", id="no stop token"),
        pytest.param(CHATML.replace("<|im_end|>", "<|endoftext|>"), "would never learn to stop", id="another token"),
        pytest.param("{{ nonsense(", "cannot be trained on", id="broken"),
        pytest.param(
            CHATML.replace("{% if add_generation_prompt %}<|im_start|>assistant", "{% if add_generation_prompt %}Bot:"),
            "prompt is no prefix",
            id="a generation prompt that the answers do not follow",
        ),
    ],
)
def test_a_template_that_cannot_be_trained_on_is_refused(template: Any, words: str) -> None:
    with pytest.raises(ModelUnusable, match=words):
        encoder(template)


@pytest.mark.parametrize(
    ("template", "turns", "detail"),
    [
        pytest.param(NO_SYSTEM, conversation("a", "b", system="S"), "no system prompt", id="the template refuses it"),
        pytest.param(CHATML, conversation("a<|im_end|>", "b"), "contains <|im_end|>", id="a control token in a text"),
    ],
)
def test_a_conversation_that_cannot_be_encoded_is_removed(template: str, turns: list[Turn], detail: str) -> None:
    with pytest.raises(Removed) as removed:
        encoder(template).encode(turns)
    assert detail in removed.value.detail


def test_padding_is_masked_and_the_stop_token_is_not_though_they_are_the_same_token() -> None:
    short, long = ENCODER.encode(conversation("a", "b")), ENCODER.encode(conversation("a longer question", "c d e"))
    batch = Collator(pad_id=STOP)([as_row(short), as_row(long)])
    size = len(short.ids)
    assert batch["input_ids"][0].tolist() == short.ids + [STOP] * (len(long.ids) - size)
    assert batch["labels"][0].tolist() == labels_of(short) + [IGNORED] * (len(long.ids) - size)
    assert batch["labels"][0, size - 1] == STOP
    assert torch.equal(batch["attention_mask"].sum(1), torch.tensor([size, len(long.ids)]))


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120))
def test_batches_by_length_hold_everything_within_the_budget(lengths: list[int], budget: int) -> None:
    examples = [Encoded([0] * length, []) for length in lengths]
    batches = list(by_length(examples, budget))
    assert sorted(len(e.ids) for batch in batches for e in batch) == sorted(lengths)
    assert all(len(batch) == 1 or max(len(e.ids) for e in batch) * len(batch) <= budget for batch in batches)
