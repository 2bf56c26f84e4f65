"""Errors in OpenAI's form: the same body from the engine and from the router, so that every client library shows the sentence."""

from typing import Any

from aiohttp import web


class ApiError(Exception):
    """Ends a request with an error that the client reads; the message names the field, the value and the fix."""

    def __init__(
        self, status: int, message: str, type_: str, *, param: str | None = None, code: str | int | None = None
    ):
        super().__init__(message)
        self.status = status
        self.body = error_body(message, type_, param=param, code=status if code is None else code)

    def response(self) -> web.Response:
        return web.json_response(self.body, status=self.status)


def error_body(message: str, type_: str, *, param: str | None = None, code: str | int | None = None) -> dict[str, Any]:
    """What OpenAI's API answers beside a 4xx or 5xx."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def bad_request(message: str, param: str | None = None) -> ApiError:
    """400 as vLLM words it."""
    return ApiError(400, message, "BadRequestError", param=param)
