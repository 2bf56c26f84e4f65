"""The chart installed as a user installs it, on the real kubelet, and a namespace of one's own with a tiny real model in S3."""

import uuid
from collections.abc import Callable, Iterator

import pytest
import yaml

from demo.environment import SYSTEM_NAMESPACE, CommandError, Environment, Manifest
from support.main_job import BUCKET, jsonl, rows
from support.tiny_model import make_checkpoint


@pytest.fixture(scope="session")
def env() -> Environment:
    return Environment()


@pytest.fixture(scope="session")
def namespace(env: Environment) -> Iterator[str]:
    """Whose name is new every time: results of an earlier run are never met."""
    name = f"e2e-{uuid.uuid4().hex[:6]}"
    env.namespace(name)
    yield name
    env.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def operator(env: Environment, namespace: str) -> Iterator[None]:
    """The chart looks after this namespace; an operator that was installed before gets its values back."""
    before = _installed_values(env)
    watched = [*(before or {}).get("settings", {}).get("namespaces", []), namespace]
    env.install(env.values("thin", namespaces=watched))
    yield
    if before is None:
        env.helm("uninstall", "tuningfork", "-n", SYSTEM_NAMESPACE, "--wait")
    else:
        env.install(before)


def _installed_values(env: Environment) -> Manifest | None:
    try:
        return dict(yaml.safe_load(env.helm("get", "values", "tuningfork", "-n", SYSTEM_NAMESPACE, "-o", "yaml")) or {})
    except CommandError:
        return None


@pytest.fixture(scope="session")
def base(env: Environment, tmp_path_factory: pytest.TempPathFactory) -> str:
    """URI of the tiny model."""
    env.bucket(BUCKET)
    env.upload(make_checkpoint(tmp_path_factory.mktemp("tiny")), BUCKET, "base/tiny")
    return f"s3://{BUCKET}/base/tiny"


@pytest.fixture(scope="session")
def put_rows(env: Environment) -> Callable[..., str]:
    """Uploads rows and gives their URI."""

    def put(name: str, content: bytes | None = None, *, count: int = 120, shift: int = 0) -> str:
        env.bucket(BUCKET)
        env.s3().put_object(Bucket=BUCKET, Key=name, Body=jsonl(rows(count, shift)) if content is None else content)
        return f"s3://{BUCKET}/{name}"

    return put
