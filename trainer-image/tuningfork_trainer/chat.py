"""Conversations as tokens, with the spans that are trained: each answer up to and including its stop token.

The spans are found by rendering growing prefixes with the model's own chat template, so templates without ``{% generation %}``
markers work, and the prompt of every answer has exactly the tokens that an engine will see. Looking for a marker text such as
"### Response:" was rejected: tokens differ at the border, and a marker inside a question moves it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from tuningfork_trainer.errors import ModelUnusable
from tuningfork_trainer.rows import Removal, Removed, Turn

PROBE: list[Turn] = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]


@dataclass(frozen=True)
class Encoded:
    """One example. ``answers`` are half-open token ranges; everything outside them has no label."""

    ids: list[int]
    answers: list[tuple[int, int]]


class ChatEncoder:
    """Encodes for one tokeniser. Construction proves on a probe that the model can learn to stop."""

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int], uri: str):
        self._tokenizer = tokenizer
        self._stop_ids = frozenset(stop_ids)
        self._special = [token for token in tokenizer.all_special_tokens if token]
        if not tokenizer.chat_template:
            raise ModelUnusable(
                f"{uri} has no chat template, so the form of a conversation is unknown; use the model's instruct variant, or put "
                "a chat_template.jinja beside its tokenizer"
            )
        try:
            self.encode(PROBE)
        except Removed as error:
            raise ModelUnusable(f"{uri}: its chat template cannot be trained on: {error.detail}") from error

    def encode(self, turns: list[Turn]) -> Encoded:
        """Tokens up to the last answer's stop token; raises `Removed`."""
        self._refuse_special_tokens(turns)
        whole = self._render(turns)
        ids, answers = self._encode_text(whole), list[tuple[int, int]]()
        last = len(turns) - 1
        for index, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            prompt = self._render(turns[:index], generation=True)
            through = whole if index == last else self._render(turns[: index + 1])
            if not (whole.startswith(through) and through.startswith(prompt)):
                # Some templates write earlier answers in another way than the last (they drop its reasoning), so only the last
                # one is what the model would produce.
                if index == last:
                    raise Removed(
                        Removal.TEMPLATE_MISMATCH, "the prompt is no prefix of the conversation with its answer"
                    )
                continue
            aligned = self._align(ids, prompt, whole)
            answers = [(a, z) for a, z in answers if aligned[:z] == ids[:z]]  # an earlier border may not have held
            ids = aligned
            start = len(self._encode_text(prompt))
            answers.append((start, self._after_stop(ids, start)))
        return Encoded(ids[: answers[-1][1]], answers)

    def _align(self, ids: list[int], prompt: str, whole: str) -> list[int]:
        """``ids`` with a token border at the end of the prompt.

        A tokeniser may merge the end of the prompt with an answer that begins with white space. The engine cannot: it is given
        the prompt's tokens and goes on from there, so the border is kept and the rest is tokenised for itself.
        """
        head = self._encode_text(prompt)
        if ids[: len(head)] == head:
            return ids
        aligned = head + self._encode_text(whole[len(prompt) :])
        if self._tokenizer.decode(aligned) != self._tokenizer.decode(ids):
            raise Removed(Removal.TEMPLATE_MISMATCH, "the prompt's tokens are no prefix of the conversation's tokens")
        return aligned

    def _after_stop(self, ids: list[int], start: int) -> int:
        for position in range(start, len(ids)):
            if ids[position] in self._stop_ids:
                return position + 1
        stops = ", ".join(repr(self._tokenizer.decode([i])) for i in sorted(self._stop_ids)) or "none"
        raise Removed(
            Removal.TEMPLATE_MISMATCH,
            f"it ends no answer with a stop token of the model ({stops}), so the model would never learn to stop; add the token "
            "that ends an answer to eos_token_id in generation_config.json",
        )

    def _refuse_special_tokens(self, turns: list[Turn]) -> None:
        """A control token inside a text would be read as the real one: a turn could end early, or pretend to be another."""
        for turn in turns:
            for token in self._special:
                if token in turn["content"]:
                    raise Removed(Removal.SPECIAL_TOKEN, f"a turn by {turn['role']} contains {token}")

    def _render(self, turns: list[Turn], *, generation: bool = False) -> str:
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generation)
        except TemplateError as error:
            raise Removed(Removal.TEMPLATE_MISMATCH, f"the chat template refuses it: {error}") from error
        return str(text)

    def _encode_text(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
