"""Talking to a cluster: kubectl, and kubeconfig files.

kubectl instead of HTTP calls of our own, because it is there anyway and speaks every kind of kubeconfig. Files are JSON,
which is YAML too: the standard library writes no other.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster import pki, shell

Json = dict[str, Any]


@dataclass(frozen=True)
class Kubectl:
    """kubectl, bound to one cluster."""

    program: Path
    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        return shell.run([self.program, f"--kubeconfig={self.kubeconfig}", *arguments], stdin=stdin)

    def attempt(self, *arguments: str, timeout: float = 10) -> subprocess.CompletedProcess[str]:
        return shell.attempt([self.program, f"--kubeconfig={self.kubeconfig}", *arguments], timeout=timeout)

    def apply(self, *objects: Json) -> None:
        self("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(as_list(objects)))

    def create(self, *objects: Json) -> None:
        self("create", "-f", "-", stdin=json.dumps(as_list(objects)))

    def get(self, *arguments: str) -> Json:
        answer: Json = json.loads(self("get", *arguments, "-o", "json"))
        return answer

    def ready(self) -> bool:
        return self.attempt("get", "--raw", "/readyz", "--request-timeout=3s").returncode == 0

    def server(self) -> str:
        """The API server's URL."""
        view = json.loads(self("config", "view", "--minify", "-o", "json"))
        url: str = view["clusters"][0]["cluster"]["server"]
        return url


def as_list(objects: tuple[Json, ...]) -> Json:
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def kubeconfig(server: str, authority: Path, client: pki.Pair, user: str) -> str:
    """Self-contained, so that a copy of it is all that a checkout needs."""

    def embedded(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    name = "tuningfork-dev"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": embedded(authority)}}],
        "users": [
            {
                "name": user,
                "user": {"client-certificate-data": embedded(client.cert), "client-key-data": embedded(client.key)},
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "current-context": name,
    }
    return json.dumps(document, indent=2) + "\n"


def write_private(path: Path, text: str) -> None:
    """A file with a credential in it: replaced whole, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp: readable by its owner alone, and another name for each of two writers.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(temporary).replace(path)
