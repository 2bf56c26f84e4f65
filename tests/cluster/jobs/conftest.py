"""A namespace that enforces the restricted Pod Security Standard, with the CRDs of this version."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from support.api_server import ROOT, Api, cluster_kubectl, namespace


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    kubectl = cluster_kubectl()
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    kubectl("wait", "--for=condition=Established", "-f", str(ROOT / "crds"), "--timeout=30s")
    with namespace(kubectl, "jobs", **{"pod-security.kubernetes.io/enforce": "restricted"}) as name:
        yield Api(kubectl, name, tmp_path_factory.mktemp("kubectl"))


@pytest.fixture(scope="session")
def s3_info() -> dict[str, str]:
    info: dict[str, dict[str, str]] = json.loads((ROOT / ".cluster" / "info.json").read_text())
    return info["s3"]


@pytest.fixture
def bucket(s3_info: dict[str, str]) -> Iterator[Any]:
    """A bucket of one's own, removed afterwards."""
    store = boto3.resource(
        "s3",
        endpoint_url=s3_info["endpoint"],
        region_name=s3_info["region"],
        aws_access_key_id=s3_info["accessKey"],
        aws_secret_access_key=s3_info["secretKey"],
    )
    made = store.Bucket(f"jobs-{uuid.uuid4().hex[:8]}")
    made.create()
    yield made
    made.objects.delete()
    made.delete()
