"""What the router reads of a request and changes in it. Pure.

The body is parsed once; the model becomes the adapter's name, and a stream is asked to end with its usage, because tokens cannot
be counted otherwise. Everything else passes as the client wrote it: the engine knows its parameters better than we do.
"""

import json
from dataclasses import dataclass
from typing import Any

from tuningfork_serving.openai import ApiError


@dataclass(frozen=True)
class Call:
    """A parsed request."""

    path: str
    fields: dict[str, Any]
    model: str
    """As the client named it."""
    user: str | None
    """The body's user."""
    stream: bool
    wants_usage: bool
    """The client itself asked for usage in its stream."""

    def upstream_body(self, adapter: str) -> bytes:
        """What the engine gets."""
        fields = {**self.fields, "model": adapter}
        options = fields.get("stream_options")
        if self.stream and (options is None or isinstance(options, dict)):
            fields["stream_options"] = {**(options or {}), "include_usage": True}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def parse_call(path: str, raw: bytes) -> Call:
    """The request, or the error that its client gets."""
    try:
        fields = json.loads(raw)
    except ValueError as error:
        raise _invalid(f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise _invalid("the body must be a JSON object")
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise _invalid("model must be given: the name of the model that this endpoint serves", "model")
    user, options = fields.get("user"), fields.get("stream_options")
    return Call(
        path=path,
        fields=fields,
        model=model,
        user=user if isinstance(user, str) and user else None,
        stream=fields.get("stream") is True,
        wants_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _invalid(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, message, "invalid_request_error", param=param, code="invalid_request")
