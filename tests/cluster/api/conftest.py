"""A namespace on the development cluster with the three CRDs applied."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.kube import Kubectl
from support.api_server import Api

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    info = json.loads((ROOT / ".cluster" / "info.json").read_text())
    kubectl = Kubectl(Path(info["kubectl"]), Path(info["kubeconfig"]))
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"), "--timeout=30s")
    namespace = f"api-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", namespace)
    yield Api(kubectl, namespace, tmp_path_factory.mktemp("kubectl"))
    kubectl("delete", "namespace", namespace, "--wait=false")
