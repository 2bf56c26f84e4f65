"""The main job on real parts: data to version to production to a better version, and a bad one that comes back."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from demo.environment import Environment, Manifest, wait_until
from support.main_job import BUCKET, JOBS, ROLLOUTS, VERSIONS, condition, follow, jsonl, make_job, rows

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.usefixtures("operator")]


class World:
    """The test's namespace with its model and data."""

    def __init__(self, env: Environment, namespace: str, base: str, put_rows: Callable[..., str]) -> None:
        self.env, self.namespace, self.base, self.put_rows = env, namespace, base, put_rows
        self.versions: dict[str, str] = {}

    def start(self, name: str, uri: str, **changes: Any) -> None:
        self.env.apply(make_job(self.namespace, name, self.base, uri, **changes))

    def version(self, name: str, *, shift: int = 0, **changes: Any) -> str:
        """The ModelVersion of a job, which is run on first use."""
        if name not in self.versions:
            self.start(name, self.put_rows(f"{name}.jsonl", shift=shift), **changes)
            job, _ = follow(self.env, self.namespace, name)
            assert job["status"]["phase"] == "Succeeded", job["status"]["message"]
            self.versions[name] = job["status"]["modelVersion"]
        return self.versions[name]

    def rollout(self) -> Manifest:
        return self.env.get(ROLLOUTS, "colours", self.namespace) or {}


@pytest.fixture(scope="module")
def world(env: Environment, operator: None, namespace: str, base: str, put_rows: Callable[..., str]) -> World:
    return World(env, namespace, base, put_rows)


def test_a_job_becomes_a_verified_version(world: World) -> None:
    dirty = [*rows(100), *rows(3), {"instruction": "What colour is air?", "input": "", "output": " "}]
    dirty.append({"instruction": "Who knows?", "input": "", "output": "Ask jo@example.com about the colour."})
    world.start("first", world.put_rows("first.jsonl", jsonl(dirty)), data={
        "sources": [{"name": "rows", "uri": f"s3://{BUCKET}/first.jsonl"}], "cleaning": {"redactPII": ["Email"]},
    })  # fmt: skip
    job, seen = follow(world.env, world.namespace, "first")
    status = job["status"]
    assert status["phase"] == "Succeeded", status["message"]
    assert status["data"]["read"] == 105
    assert sum(status["data"]["removed"].values()) == 4
    assert status["data"]["redacted"] == {"Email": 1}
    assert status["sizing"]["accelerator"] == "cpu"
    assert status["evaluation"]["tuned"]["perplexity"] < 0.9 * status["evaluation"]["baseline"]["perplexity"]
    assert [gate["passed"] for gate in status["evaluation"]["gates"]] == [True]
    phases = list(dict.fromkeys(s["phase"] for s in seen))
    assert phases[-1] == "Succeeded"
    assert {"Preparing", "Training"} <= set(phases)

    version = wait_until(
        lambda: (
            (v := world.env.get(VERSIONS, status["modelVersion"], world.namespace))
            and condition(v, "Verified").get("status") == "True"
            and v
        ),
        within=30,
        what="the version is verified",
    )
    assert version["metadata"]["name"] == "colours-v1"
    assert "ownerReferences" not in version["metadata"]
    assert version["spec"]["lineage"]["job"]["uid"] == job["metadata"]["uid"]
    world.versions["first"] = "colours-v1"


def test_the_same_job_created_again_succeeds_without_training(world: World) -> None:
    world.version("first")
    world.env.kubectl("delete", JOBS, "first", "-n", world.namespace)
    wait_until(lambda: not world.env.items("jobs", world.namespace), within=60, what="the job's children are gone")
    world.start("first", f"s3://{BUCKET}/first.jsonl", data={
        "sources": [{"name": "rows", "uri": f"s3://{BUCKET}/first.jsonl"}], "cleaning": {"redactPII": ["Email"]},
    })  # fmt: skip
    job, _ = follow(world.env, world.namespace, "first", within=60)
    assert job["status"]["phase"] == "Succeeded"
    assert world.env.items("jobs", world.namespace) == []


def test_a_gate_that_does_not_pass_rejects(world: World) -> None:
    gates = {"gates": [{"metric": "perplexity", "maxRatio": 0.0001}]}
    world.start("rejected", world.put_rows("rejected.jsonl"), evaluation=gates)
    job, _ = follow(world.env, world.namespace, "rejected")
    assert job["status"]["phase"] == "Rejected"
    assert "modelVersion" not in job["status"]
    assert job["status"]["runs"][-1]["exitCode"] == 10


FAILURES = [
    pytest.param({"data": {"sources": [{"name": "rows", "uri": f"s3://{BUCKET}/missing.jsonl"}]}}, "DataNotFound", "missing.jsonl",
                 id="the data set does not exist"),
    pytest.param({"data": {"sources": [{"name": "rows", "uri": f"s3://{BUCKET}/empty-answers.jsonl"}]}}, "DataUnusable", "empty",
                 id="no example survives cleaning"),
    pytest.param({"model": {"uri": f"s3://{BUCKET}/base/nowhere"}}, "ModelNotFound", "base/nowhere", id="the model does not exist"),
    pytest.param({"model": {"uri": f"s3://{BUCKET}/base/broken"}}, "ModelUnusable", "base/broken", id="the model does not load"),
]  # fmt: skip


@pytest.fixture(scope="module")
def failing(world: World) -> dict[str, str]:
    """All jobs that must fail, started together; their names by reason."""
    world.put_rows(
        "empty-answers.jsonl", jsonl([{"instruction": f"q{n}", "input": "", "output": ""} for n in range(20)])
    )
    for key in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        world.env.s3().copy({"Bucket": BUCKET, "Key": f"base/tiny/{key}"}, BUCKET, f"base/broken/{key}")
    world.put_rows("base/broken/model.safetensors", b"\x08\0\0\0\0\0\0\0 broken!")
    data = world.put_rows("good.jsonl")
    names = {}
    for case in FAILURES:
        changes, reason, _ = case.values
        names[reason] = f"fails-{reason.lower()}"
        world.start(names[reason], data, **changes)
    return names


@pytest.mark.parametrize(("changes", "reason", "named"), FAILURES)
def test_a_failure_names_its_cause(
    world: World, failing: dict[str, str], changes: Manifest, reason: str, named: str
) -> None:
    job, _ = follow(world.env, world.namespace, failing[reason])
    status = job["status"]
    assert status["phase"] == "Failed"
    assert condition(job, "Stalled")["reason"] == reason, status["message"]
    assert named in status["message"].lower() or named in status["message"]
    assert status["attempts"] <= 1, "what cannot work is not tried again"


def test_a_killed_pod_resumes_from_its_checkpoint(world: World) -> None:
    training = {"epochs": 100, "effectiveBatchSize": 8, "maxSequenceLength": 128, "learningRate": 0.003}
    world.start("killed", world.put_rows("killed.jsonl"), training=training, checkpoints={"everySteps": 50})

    def under_way() -> bool:
        status = (world.env.get(JOBS, "killed", world.namespace) or {}).get("status", {})
        return bool(status.get("progress", {}).get("step", 0) > 100)

    wait_until(under_way, within=180, what="training is at step 100")
    world.env.kubectl(
        "delete",
        "pod",
        "-n",
        world.namespace,
        "-l",
        "tuningfork.dev/job=killed,tuningfork.dev/stage=train",
        "--wait=false",
    )
    job, _ = follow(world.env, world.namespace, "killed")
    status = job["status"]
    assert status["phase"] == "Succeeded", status["message"]
    first, second = (run for run in status["runs"] if run["stage"] == "train")
    assert (first["outcome"], first["counted"]) == ("Interrupted", False)
    assert second["outcome"] == "Succeeded"
    assert second["resumedFromStep"] >= 100


def test_deleting_a_job_in_mid_run_leaves_nothing(world: World) -> None:
    training = {"epochs": 100, "effectiveBatchSize": 8, "maxSequenceLength": 128}
    world.start("deleted", world.put_rows("deleted.jsonl"), training=training)
    label = "tuningfork.dev/job=deleted"
    wait_until(lambda: world.env.items("pods", world.namespace, "-l", label), within=60, what="a pod of the job")
    world.env.kubectl("delete", JOBS, "deleted", "-n", world.namespace, "--wait=true")
    for kind in ("jobs", "pods", "configmaps"):
        wait_until(
            lambda kind=kind: not world.env.items(kind, world.namespace, "-l", label),
            within=150,
            what=f"no {kind} are left",
        )


class Users:
    """Asks and rates all the time; ``bad`` names versions whose answers are rated down."""

    def __init__(self, url: str, bad: set[str]) -> None:
        self.url, self.bad = url, bad
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(4)]

    def __enter__(self) -> "Users":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _run(self, worker: int) -> None:
        n = 0
        while not self._stop.is_set():
            n += 1
            try:
                self._ask(f"user-{worker}-{n % 50}")
            except (urllib.error.URLError, OSError, ValueError) as error:
                self.failures.append(
                    f"{error}: {error.read()[:200]!r}" if isinstance(error, urllib.error.HTTPError) else str(error)
                )
            time.sleep(0.05)

    def _ask(self, user: str) -> None:
        body = {
            "model": "colours",
            "messages": [{"role": "user", "content": "What colour has the sea number 2?"}],
            "max_tokens": 4,
        }
        answer, headers = post(self.url, "/v1/chat/completions", body, {"X-User-Id": user})
        version = headers["X-TuningFork-Version"]
        self.answers[version] += 1
        post(self.url, "/v1/feedback", {"id": answer["id"], "rating": "down" if version in self.bad else "up"})


def post(url: str, path: str, body: Manifest, headers: dict[str, str] | None = None) -> tuple[Manifest, Any]:
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json"} | (headers or {})
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply), reply.headers


def make_rollout(world: World, production: str) -> Manifest:
    metrics = [
        {"name": "errors", "template": "ErrorRate", "compareTo": "Production", "maxIncrease": 0.05, "minSamples": 10},
        {
            "name": "feedback",
            "template": "NegativeFeedbackRate",
            "compareTo": "Production",
            "maxIncrease": 0.1,
            "minSamples": 10,
        },
    ]
    steps = [{"track": "canary", "weight": 20, "hold": "10s"}, {"track": "production", "weight": 40, "hold": "10s"}]
    return {
        "apiVersion": "tuningfork.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "colours", "namespace": world.namespace},
        "spec": {
            "model": "colours",
            "serving": {"base": {"uri": world.base}, "replicas": 1},
            "tracks": {"production": {"version": production}},
            "strategy": {"steps": steps},
            "analysis": {"interval": "5s", "metrics": metrics},
        },
    }


@pytest.fixture(scope="module")
def url(world: World) -> Iterator[str]:
    """The served model; its first version is stable."""
    world.env.apply(make_rollout(world, world.version("first")))
    wait_until(
        lambda: world.rollout().get("status", {}).get("phase") == "Healthy", within=180, what="the first version serves"
    )
    with world.env.service("colours", world.namespace) as address:
        yield address


def test_what_is_not_served_is_not_found(url: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(url, "/v1/chat/completions", {"model": "base", "messages": [{"role": "user", "content": "hello"}]})
    assert refused.value.code == 404
    assert json.load(refused.value)["error"]["code"] == "model_not_found"


def test_a_good_version_is_promoted_and_a_bad_one_comes_back(world: World, url: str) -> None:
    good = world.version("good", shift=0, training={"epochs": 4, "effectiveBatchSize": 8, "learningRate": 0.01})
    bad = world.version("bad", shift=3)
    with Users(url, bad={bad}) as users:
        world.env.apply(make_rollout(world, good))
        wait_until(
            lambda: world.rollout()["status"].get("stable", {}).get("version") == good,
            within=180,
            what=f"{good} is stable",
        )
        world.env.apply(make_rollout(world, bad))
        wait_until(
            lambda: (
                any(f["version"] == bad for f in world.rollout()["status"].get("failed", []))
                and world.rollout()["status"]["acknowledged"]
            ),
            within=180,
            what=f"{bad} is rolled back",
        )
        stopped = users.answers[bad]
        time.sleep(3)
        assert users.answers[bad] <= stopped + 4, "answers that were under way may come in, new ones may not"
    assert users.failures == []
    rollout = world.rollout()
    status = rollout["status"]
    assert status["stable"]["version"] == good
    assert rollout["spec"]["tracks"]["production"]["version"] == bad, "what was applied is left alone"
    assert {c["type"]: c["status"] for c in status["conditions"] if c["type"] in ("Available", "Ready", "Stalled")} == {
        "Available": "True", "Ready": "False", "Stalled": "True",
    }  # fmt: skip
    assert "feedback" in status["failed"][-1]["message"]
    canary = [entry for entry in status["history"] if bad in entry["weights"]]
    assert max(entry["weights"][bad] for entry in canary) == 20, "it never left the first step"
