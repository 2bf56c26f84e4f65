"""The operator dies right after each of its writes, and nothing in the end is different.

The main job runs twice on the real kubelet: once undisturbed, once with an operator that is killed (SIGKILL) between the API server's
answer to a write and its own hearing of it, after every single write, and started again. Then status, children, their uids and the
content of the object store are compared.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.environment import Environment, Manifest, wait_until
from support.cluster import read_cluster
from support.main_job import BUCKET, JOBS, ROLLOUTS, VERSIONS, jsonl, make_job, rows
from support.proxy import Call, FaultProxy
from support.tiny_model import make_checkpoint

pytestmark = [pytest.mark.chaos, pytest.mark.e2e, pytest.mark.timeout(1500)]

CHILDREN = ("jobs", "configmaps", "services", "deployments", "serviceaccounts", "rolebindings", VERSIONS)
MOMENTS = {
    "lastTransitionTime",
    "startedAt",
    "endedAt",
    "updatedAt",
    "since",
    "at",
    "measuredAt",
    "verifiedAt",
    "uid",
    "primedAt",
}
"""Fields that differ between any two runs."""
MEASURED = {"progress", "sizing", "bytes"}
"""Speed is measured anew in each run, and a report's bytes hold it."""
KILLS = 80
"""More writes than the whole main job has; a plan that writes for ever would end here."""


@dataclass
class Operator:
    """The operator as a process of this machine that speaks to the API server through a proxy."""

    command: list[str]
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    kills: list[str] = field(default_factory=list)
    stopping: bool = False

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self.command, env=self.env, stdout=out, stderr=out)

    def kill(self, call: Call) -> None:
        """Called by the proxy before the operator hears of its write."""
        if self.process and len(self.kills) < KILLS and not self.stopping:
            self.kills.append(str(call))
            self.process.send_signal(signal.SIGKILL)

    def keep_running(self) -> None:
        while not self.stopping:
            if self.process is None or self.process.poll() is not None:
                self.start()
            try:
                assert self.process
                self.process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue


@contextmanager
def run_operator(env: Environment, namespace: str, folder: Path, *, kill: bool) -> Iterator[Operator]:
    """An operator for one namespace, killed after each write or left in peace."""
    fragment = {key: env.info["thin"][key] for key in ("volumes", "volumeMounts", "env")}
    image = env.info["thin"]["image"]
    s3 = env.info["s3"]
    settings = {
        "images": {"trainer": image, "serving": image},
        "pods": fragment,
        "s3": {"endpoint": s3["endpoint"]},
        "prometheus": {"url": env.info["prometheus"]["url"]},
        "namespace": namespace,
        "namespaces": [namespace],
    }
    file = folder / "settings.yaml"
    file.write_text(yaml.safe_dump(settings))
    with FaultProxy(read_cluster()) as proxy:
        environment = os.environ | {
            "KUBECONFIG": str(proxy.write_kubeconfig(folder / "kubeconfig")),
            "AWS_ACCESS_KEY_ID": s3["accessKey"],
            "AWS_SECRET_ACCESS_KEY": s3["secretKey"],
            "POD_NAME": "chaos",
            "POD_IP": "127.0.0.1",
        }
        command = [
            str(Path(sys.executable).parent / "tuningfork"),
            "operator",
            "--settings",
            str(file),
            "--host",
            "127.0.0.1",
        ]
        command += ["--http-port", str(_free_port()), "--intake-port", str(_free_port())]
        operator = Operator(command, environment, folder / "operator.log")
        if kill:
            proxy.after_write = operator.kill
        keeper = threading.Thread(target=operator.keep_running, daemon=True)
        keeper.start()
        try:
            yield operator
        finally:
            operator.stopping = True
            keeper.join(5)
            if operator.process:
                operator.process.kill()
                operator.process.wait(10)


@dataclass
class Ended:
    """The end of a run, without what differs between any two."""

    job: Manifest
    version: Manifest
    rollout: Manifest
    children: dict[str, list[str]]
    objects: dict[str, str]


class Uids:
    """Every uid that a child's name ever had."""

    def __init__(self, env: Environment, namespace: str) -> None:
        self._env, self._namespace = env, namespace
        self.seen: dict[str, set[str]] = defaultdict(set)

    def look(self) -> None:
        for kind in CHILDREN:
            for item in self._env.items(kind, self._namespace):
                self.seen[f"{kind}/{item['metadata']['name']}"].add(item["metadata"]["uid"])


def run_main_job(env: Environment, folder: Path, base: str, data: str, *, kill: bool) -> tuple[Ended, Uids, Operator]:
    """A job, its version and its rollout in a namespace of their own."""
    namespace = f"chaos-{uuid.uuid4().hex[:6]}"
    env.namespace(namespace)
    _let_serving_pods_read(env, namespace)
    uids = Uids(env, namespace)
    try:
        with run_operator(env, namespace, folder, kill=kill) as operator:
            env.apply(make_job(namespace, "job", base, data))
            _settled(
                env, uids, operator, lambda: _phase(env, JOBS, "job", namespace) == "Succeeded", "the job succeeds"
            )
            env.apply(_rollout(namespace, base))
            _settled(
                env,
                uids,
                operator,
                lambda: _phase(env, ROLLOUTS, "colours", namespace) == "Healthy",
                "the rollout is healthy",
            )
            stage = lambda: (env.get(VERSIONS, "colours-v1", namespace) or {}).get("status", {}).get("stage")  # noqa: E731
            _settled(env, uids, operator, lambda: stage() == "Production", "the version knows where it serves")
            ended = Ended(
                job=_timeless(env.get(JOBS, "job", namespace), namespace),
                version=_timeless(env.get(VERSIONS, "colours-v1", namespace), namespace),
                rollout=_timeless(env.get(ROLLOUTS, "colours", namespace), namespace),
                children={kind: sorted(_name(i, namespace) for i in env.items(kind, namespace)) for kind in CHILDREN},
                objects=_stored(env, namespace),
            )
            return ended, uids, operator
    finally:
        env.kubectl("delete", "namespace", namespace, "--wait=false")


def _settled(env: Environment, uids: Uids, operator: Operator, check: Callable[[], bool], what: str) -> None:
    def look() -> bool:
        uids.look()
        return check()

    try:
        wait_until(look, within=600, what=what, every=0.3)
    except TimeoutError as error:
        log = operator.log.read_text()[-3000:]
        raise AssertionError(
            f"{error}; {len(operator.kills)} kills, the last {operator.kills[-3:]}; log: {log}"
        ) from error


def _phase(env: Environment, kind: str, name: str, namespace: str) -> str:
    found = env.get(kind, name, namespace) or {}
    return str(found.get("status", {}).get("phase", ""))


def _let_serving_pods_read(env: Environment, namespace: str) -> None:
    """What the chart's ClusterRole allows, without the chart."""
    api = "rbac.authorization.k8s.io"
    role = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}
    subject = {"kind": "Group", "apiGroup": api, "name": f"system:serviceaccounts:{namespace}"}
    env.apply(
        {
            "apiVersion": f"{api}/v1",
            "kind": "Role",
            "metadata": {"name": "test", "namespace": namespace},
            "rules": [role],
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "test", "namespace": namespace},
            "roleRef": {"kind": "Role", "apiGroup": api, "name": "test"},
            "subjects": [subject],
        },
    )


def _rollout(namespace: str, base: str) -> Manifest:
    return {
        "apiVersion": "tuningfork.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "colours", "namespace": namespace},
        "spec": {
            "model": "colours",
            "serving": {"base": {"uri": base}, "replicas": 1},
            "tracks": {"production": {"version": "colours-v1"}},
        },
    }


def _timeless(obj: Any, namespace: str) -> Any:
    """Spec and status without moments, uids and the namespace's own name."""
    assert obj is not None
    plain = json.loads(json.dumps({"spec": obj["spec"], "status": obj["status"]}).replace(namespace, "NAMESPACE"))
    return _without(plain)


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without(sub) for key, sub in value.items() if key not in MOMENTS | MEASURED | {"digest", "adapter"}
        }
    if isinstance(
        value, list
    ):  # named things have no order: conditions stand in the order in which they were first stated
        return sorted((_without(item) for item in value), key=lambda v: json.dumps(v, sort_keys=True))
    return value


def _name(item: Manifest, namespace: str) -> str:
    return str(item["metadata"]["name"]).replace(namespace, "NAMESPACE")


def _stored(env: Environment, namespace: str) -> dict[str, str]:
    """Every object of the run's output and its entity tag; what holds durations counts by its name only."""
    prefix = f"runs/{namespace}/"
    pages = env.s3().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    found = {item["Key"].removeprefix(prefix): item["ETag"] for page in pages for item in page.get("Contents", [])}
    exact = (".safetensors", ".jsonl", "tokenizer.json")
    return {key: tag if key.endswith(exact) else "present" for key, tag in found.items()}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_an_operator_killed_after_each_of_its_writes_ends_the_same(tmp_path: Path) -> None:
    env = Environment()
    env.kubectl("apply", "--server-side", "--force-conflicts", "-f", "crds")
    env.bucket(BUCKET)
    env.upload(make_checkpoint(tmp_path / "model"), BUCKET, "base/tiny")
    env.s3().put_object(Bucket=BUCKET, Key="chaos.jsonl", Body=jsonl(rows(120)))
    base, data = f"s3://{BUCKET}/base/tiny", f"s3://{BUCKET}/chaos.jsonl"
    (tmp_path / "calm").mkdir()
    (tmp_path / "killed").mkdir()

    calm, _, _ = run_main_job(env, tmp_path / "calm", base, data, kill=False)
    killed, uids, operator = run_main_job(env, tmp_path / "killed", base, data, kill=True)

    assert 15 <= len(operator.kills) < KILLS, operator.kills
    assert killed.children == calm.children
    assert {name: len(seen) for name, seen in uids.seen.items() if len(seen) > 1} == {}, "a child was made twice"
    assert killed.objects == calm.objects
    assert killed.version == calm.version
    assert killed.job == calm.job
    assert killed.rollout == calm.rollout
