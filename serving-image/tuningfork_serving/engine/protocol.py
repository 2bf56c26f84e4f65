"""OpenAI's requests and answers as vLLM speaks them. Pure: parsed once, refused with the field's name, built from plain values.

What this engine does not do is refused, not ignored: a client that asks for log-probabilities and gets none would not notice.
"""

import json
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuningfork_serving.openai import bad_request

UNSUPPORTED = (
    "best_of",
    "echo",
    "frequency_penalty",
    "functions",
    "logit_bias",
    "logprobs",
    "presence_penalty",
    "response_format",
    "suffix",
    "tools",
    "top_logprobs",
)
"""Fields that must be absent or at rest (null, false, 0, empty)."""


class StreamOptions(BaseModel):
    """stream_options."""

    include_usage: bool = False


class _Request(BaseModel):
    """What chat and completions share."""

    model_config = ConfigDict(extra="allow")

    model: str = ""
    """Absent means the base model, as in vLLM."""
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1)] = 0
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    n: Literal[1] = 1
    max_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class Part(BaseModel):
    """A piece of a message's content."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A chat message."""

    role: str
    content: str | list[Part] | None = None

    def flat(self) -> dict[str, str]:
        """As chat templates want it."""
        content = self.content or ""
        return {
            "role": self.role,
            "content": content if isinstance(content, str) else "".join(p.text for p in content),
        }


class ChatRequest(_Request):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(_Request):
    """POST /v1/completions."""

    prompt: str | list[int] | Annotated[list[str], Field(min_length=1, max_length=1)]

    @property
    def limit(self) -> int:
        return self.max_tokens or 16


class Usage(NamedTuple):
    """Tokens of an answer."""

    prompt: int
    completion: int

    def dump(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt,
            "total_tokens": self.prompt + self.completion,
            "completion_tokens": self.completion,
        }


class Answer(NamedTuple):
    """What every body of one answer repeats."""

    id: str
    created: int
    """Unix seconds."""
    model: str
    chat: bool

    def body(self, choices: list[dict[str, Any]], *, chunk: bool, usage: Usage | None = None) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.chat else "text_completion"
        body = {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}
        return body if usage is None else {**body, "usage": usage.dump()}

    def whole(self, text: str, finish_reason: str, usage: Usage) -> dict[str, Any]:
        """The answer of a request without streaming."""
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}
        return self.body([choice], chunk=False, usage=usage)

    def chunk(self, text: str, finish_reason: str | None, *, first: bool) -> dict[str, Any]:
        """One event of a stream."""
        delta = {"role": "assistant", "content": text} if first else {"content": text}
        said = {"delta": delta} if self.chat else {"text": text}
        return self.body([{"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}], chunk=True)

    def closing(self, usage: Usage) -> dict[str, Any]:
        """The event behind the last one when the client asked for usage."""
        return self.body([], chunk=True, usage=usage)


def parse_request(raw: bytes, *, chat: bool) -> ChatRequest | CompletionRequest:
    """The request, or a 400 that names the first field that is wrong."""
    try:
        fields = json.loads(raw)
    except ValueError as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    try:
        request = (ChatRequest if chat else CompletionRequest).model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise bad_request(f"{where or 'the body'}: {first['msg']}", where or None) from error
    for name in UNSUPPORTED:
        if fields.get(name):
            raise bad_request(f"{name} is not supported by this engine; leave it out", name)
    return request


def event(body: dict[str, Any] | str) -> bytes:
    """One server-sent event."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


DONE = event("[DONE]")
