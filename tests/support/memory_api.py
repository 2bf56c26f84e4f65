"""The seam below our Kubernetes client: answers its requests from a dict, as strictly as the API server where it matters.

Only for logic that a unit test can hold in its hand (who wins a Lease, what is written when). Whatever depends on how a real API
server behaves (apply, defaults, validation) is tested on a real one.
"""

import copy
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from tuningfork.providers.kubernetes import Kubernetes

Answer = tuple[int, dict[str, Any]]


class MemoryApi:
    """``fault`` may answer in place of the API server, or raise; ``requests`` are (method, path)."""

    def __init__(self, *objects: tuple[str, dict[str, Any]]) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.fault: Callable[[str, str], Answer | None] = lambda method, path: None
        self._version = 0
        for path, obj in objects:
            self._store(path, obj)

    def client(self) -> Kubernetes:
        return Kubernetes(self)

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [request for request in self.requests if request[0] != "GET"]

    async def param_serialize(self, method: str, path: str, **kwargs: Any) -> tuple[Any, ...]:
        return method, path, kwargs["header_params"], None, None

    async def call_api(self, method: str, url: str, *, body: dict[str, Any] | None, **_: Any) -> "_Response":
        path = urlsplit(url).path
        self.requests.append((method, path))
        body = copy.deepcopy(body or {})
        self.bodies.append(body)
        return _Response(*(self.fault(method, path) or self._answer(method, path, copy.deepcopy(body))))

    async def close(self) -> None:
        pass

    def _answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        target = path.removesuffix("/status")
        known = self.objects.get(target)
        match method:
            case "POST":
                target = f"{path}/{body['metadata']['name']}"
                return _failure(409, "AlreadyExists") if target in self.objects else (201, self._store(target, body))
            case "PATCH" if known is None:
                return 201, self._store(target, body)
            case _ if known is None:
                return _failure(404, "NotFound")
            case "GET":
                return 200, known
            case "PUT" if body["metadata"].get("resourceVersion") != known["metadata"]["resourceVersion"]:
                return _failure(409, "Conflict")
            case "DELETE":
                wanted = body.get("preconditions", {}).get("uid", known["metadata"].get("uid"))
                if wanted != known["metadata"].get("uid"):
                    return _failure(409, "Conflict")
                return 200, self.objects.pop(target)
            case _:
                return 200, self._store(target, _merged(known, body))

    def _store(self, path: str, obj: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        metadata = {"uid": f"uid-{self._version}"} | obj["metadata"] | {"resourceVersion": str(self._version)}
        self.objects[path] = copy.deepcopy(obj | {"metadata": metadata})
        return self.objects[path]


class _Response:
    def __init__(self, status: int, answer: dict[str, Any]) -> None:
        self.status = status
        self._answer = answer

    async def read(self) -> bytes:
        return json.dumps(self._answer).encode()


def _failure(code: int, reason: str) -> Answer:
    return code, {"kind": "Status", "reason": reason, "message": f"{reason} it is"}


def _merged(known: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    return known | body | {"metadata": known["metadata"] | body.get("metadata", {})}
