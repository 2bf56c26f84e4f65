"""A namespace on the development cluster with the three CRDs applied."""

from collections.abc import Iterator

import pytest

from support.api_server import ROOT, Api, cluster_kubectl, namespace


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    kubectl = cluster_kubectl()
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"), "--timeout=30s")
    with namespace(kubectl, "api") as name:
        yield Api(kubectl, name, tmp_path_factory.mktemp("kubectl"))
