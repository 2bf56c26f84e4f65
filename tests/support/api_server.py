"""What tests of the API do on the real API server: kubectl within one namespace."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.kube import Kubectl
from support.api_objects import Manifest

ROOT = Path(__file__).resolve().parents[2]


def cluster_kubectl() -> Kubectl:
    """As administrator of the development cluster."""
    path = ROOT / ".cluster" / "info.json"
    assert path.exists(), "these tests need the development cluster: run `make cluster`"
    info = json.loads(path.read_text())
    return Kubectl(Path(info["kubectl"]), Path(info["kubeconfig"]))


@contextmanager
def namespace(kubectl: Kubectl, prefix: str, **labels: str) -> Iterator[str]:
    """A namespace of one's own."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    metadata = {"name": name, "labels": labels}
    kubectl.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


class Api:
    """One namespace, and what the tests do with it."""

    def __init__(self, kubectl: Kubectl, namespace: str, cache: Path) -> None:
        self.kubectl = kubectl
        self.namespace = namespace
        # kubectl remembers for ten minutes which kinds there are; a cache of one's own knows only what is there now.
        self._options = (f"--namespace={namespace}", f"--cache-dir={cache}")

    def __call__(self, *arguments: str, stdin: Manifest | None = None) -> str:
        return self.kubectl(*arguments, *self._options, stdin=None if stdin is None else json.dumps(stdin))

    def create(self, manifest: Manifest, *arguments: str) -> Manifest:
        created: Manifest = json.loads(self("create", "-f", "-", "-o", "json", *arguments, stdin=manifest))
        return created

    def replace(self, manifest: Manifest, *arguments: str) -> Manifest:
        replaced: Manifest = json.loads(self("replace", "-f", "-", "-o", "json", *arguments, stdin=manifest))
        return replaced

    def set_status(self, manifest: Manifest, status: Manifest) -> None:
        self("patch", _ref(manifest), "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))

    def delete(self, manifest: Manifest) -> None:
        self("delete", _ref(manifest), "--ignore-not-found")


def _ref(manifest: Manifest) -> str:
    return f"{manifest['kind'].lower()}s.tuningfork.dev/{manifest['metadata']['name']}"
