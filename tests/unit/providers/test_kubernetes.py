"""Requests as literal paths and bodies, answers as our errors."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from kubernetes.aio import client

from tuningfork.providers import errors
from tuningfork.providers.kubernetes import (
    Kubernetes,
    Request,
    Resource,
    build_apply,
    build_create,
    build_delete,
    build_patch,
    build_replace,
)

JOBS = Resource("batch/v1", "Job", "jobs")
PODS = Resource("v1", "Pod", "pods")
NODES = Resource("v1", "Node", "nodes")
SECRETS = Resource("v1", "Secret", "secrets")
JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a", "namespace": "ml", "resourceVersion": "7"}}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "ml"}}


@pytest.mark.parametrize(
    ("request_", "method", "path", "body", "content_type"),
    [
        pytest.param(
            build_create(JOBS, JOB),
            "POST",
            "/apis/batch/v1/namespaces/ml/jobs?fieldManager=tuningfork&fieldValidation=Strict",
            JOB,
            "application/json",
            id="create",
        ),
        pytest.param(
            build_apply(PODS, POD),
            "PATCH",
            "/api/v1/namespaces/ml/pods/a?fieldManager=tuningfork&force=true&fieldValidation=Strict",
            POD,
            "application/apply-patch+yaml",
            id="apply",
        ),
        pytest.param(
            build_delete(JOBS, "ml", "a", "uid-1"),
            "DELETE",
            "/apis/batch/v1/namespaces/ml/jobs/a",
            {
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "propagationPolicy": "Background",
                "preconditions": {"uid": "uid-1"},
            },
            "application/json",
            id="delete",
        ),
        pytest.param(
            build_replace(JOBS, JOB, "status"),
            "PUT",
            "/apis/batch/v1/namespaces/ml/jobs/a/status?fieldManager=tuningfork",
            JOB,
            "application/json",
            id="replace status",
        ),
        pytest.param(
            build_patch(NODES, "", "n", {"metadata": {"labels": {"a": None}}}),
            "PATCH",
            "/api/v1/nodes/n?fieldManager=tuningfork",
            {"metadata": {"labels": {"a": None}}},
            "application/merge-patch+json",
            id="patch of something without a namespace",
        ),
    ],
)
def test_requests(request_: Request, method: str, path: str, body: dict[str, Any], content_type: str) -> None:
    assert (request_.method, request_.path, request_.body, request_.content_type) == (method, path, body, content_type)


class Api:
    """The seam: answers with what it is given, or raises it."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.urls: list[str] = []

    async def param_serialize(self, method: str, path: str, **kwargs: Any) -> tuple[Any, ...]:
        return method, path, {}, None, None

    async def call_api(self, method: str, url: str, **_: Any) -> "Api":
        self.urls.append(url)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.status, self._body = answer
        return self

    async def read(self) -> bytes:
        return self._body if isinstance(self._body, bytes) else json.dumps(self._body).encode()


def status(code: int, reason: str, message: str = "so it is") -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "code": code, "reason": reason, "message": message}


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        pytest.param(
            status(404, "NotFound", 'pods "a" not found'),
            errors.NotFoundError,
            'get /api/v1/namespaces/ml/pods/a: 404 NotFound: pods "a" not found',
            id="not found",
        ),
        pytest.param(
            status(403, "Forbidden", "pods is forbidden"),
            errors.ForbiddenError,
            "get /api/v1/namespaces/ml/pods/a: 403 Forbidden: pods is forbidden"
            " (the operator needs the verb get on pods in API group '')",
            id="forbidden",
        ),
        pytest.param(
            status(409, "AlreadyExists"),
            errors.AlreadyExistsError,
            "get /api/v1/namespaces/ml/pods/a: 409 AlreadyExists: so it is",
            id="already exists",
        ),
        pytest.param(
            status(409, "Conflict"),
            errors.ConflictError,
            "get /api/v1/namespaces/ml/pods/a: 409 Conflict: so it is",
            id="conflict",
        ),
        pytest.param(
            status(422, "Invalid"),
            errors.InvalidError,
            "get /api/v1/namespaces/ml/pods/a: 422 Invalid: so it is",
            id="invalid",
        ),
        pytest.param(
            status(429, "TooManyRequests"),
            errors.TransientError,
            "get /api/v1/namespaces/ml/pods/a: 429 TooManyRequests: so it is",
            id="too many",
        ),
        pytest.param(
            (502, b"<html>" + b"x" * 9000),
            errors.TransientError,
            "get /api/v1/namespaces/ml/pods/a: 502",
            id="a proxy's page",
        ),
        pytest.param(
            (200, b"<html>"),
            errors.TransientError,
            "get /api/v1/namespaces/ml/pods/a: JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
            id="a page instead of the object",
        ),
        pytest.param(
            TimeoutError(),
            errors.TransientError,
            "get /api/v1/namespaces/ml/pods/a: no answer within 30 s",
            id="silence",
        ),
    ],
)
async def test_answers_become_errors_of_ours(answer: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(errors.ProviderError) as raised:
        await Kubernetes(Api(answer)).get(PODS, "ml", "a")
    assert type(raised.value) is error
    assert str(raised.value) == text


def every_error(base: type[BaseException]) -> list[type[BaseException]]:
    below = [error for cls in base.__subclasses__() for error in every_error(cls)]
    return [base, *below]


@pytest.mark.parametrize("error", every_error(aiohttp.ClientError), ids=lambda error: error.__name__)
async def test_every_error_of_the_http_library_is_worth_another_try(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error, "__str__", lambda self: "it broke")  # its own needs what its constructor was given
    raised = error.__new__(error)
    with pytest.raises(errors.TransientError):
        await Kubernetes(Api(raised)).get(PODS, "ml", "a")


async def test_what_a_server_says_about_secrets_is_not_repeated() -> None:
    with pytest.raises(errors.InvalidError) as raised:
        await Kubernetes(Api(status(422, "Invalid", "data: Invalid value: 'hunter2'"))).get(SECRETS, "ml", "a")
    assert "hunter2" not in str(raised.value)


async def test_a_list_reads_all_pages_and_names_what_its_items_are() -> None:
    api = Api(
        (200, {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [{"metadata": {"name": "a"}}]}),
        (200, {"metadata": {"resourceVersion": "9"}, "items": [{"metadata": {"name": "b"}}]}),
    )
    listing = await Kubernetes(api).list(PODS, "app=x", "ml")
    named = {"apiVersion": "v1", "kind": "Pod"}
    assert listing == ([named | {"metadata": {"name": "a"}}, named | {"metadata": {"name": "b"}}], "9")
    assert api.urls == [
        "/api/v1/namespaces/ml/pods?labelSelector=app%3Dx&limit=500",
        "/api/v1/namespaces/ml/pods?labelSelector=app%3Dx&limit=500&continue=more",
    ]


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        pytest.param((200, {}), ("get", "pods", "200"), id="an answer"),
        pytest.param(status(404, "NotFound"), ("get", "pods", "404"), id="a refusal"),
        pytest.param(TimeoutError(), ("get", "pods", "error"), id="no answer"),
    ],
)
async def test_every_request_is_counted(answer: Any, counted: tuple[str, str, str]) -> None:
    seen: list[tuple[str, str, str]] = []
    kube = Kubernetes(Api(answer), lambda *args: seen.append(args))
    with suppress(errors.ProviderError):
        await kube.get(PODS, "ml", "a")
    assert seen == [counted]


def test_the_client_library_still_has_what_we_call() -> None:
    methods: list[Callable[..., Any]] = [client.ApiClient.param_serialize, client.ApiClient.call_api]
    assert all("header_params" in method.__code__.co_varnames for method in methods)
