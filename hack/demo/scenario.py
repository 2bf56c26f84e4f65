"""The main job, told as it goes: three jobs, three versions, one of them bad, and no failed request.

Each function is a chapter. Whatever did not happen raises `NotShown`, and the demo ends with a non-zero status.
"""

import os
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from demo.base_model import write_base_model
from demo.data import data_sets, docstring_pairs
from demo.environment import ROOT, CommandError, Environment, Manifest, wait_until
from demo.story import Story
from demo.traffic import Traffic

NAMESPACE = "ml"
ROLLOUT = "support"
BASE = "base/smollm2-135m"
CANARY = 20
"""Per cent of the first step in examples/demo/rollout.yaml."""
JOBS = ("support-1", "support-2", "support-3")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuningfork"
EXAMPLES = ROOT / "examples" / "demo"


SETTINGS: dict[str, Any] = {
    "namespaces": [NAMESPACE],
    "engineResources": {"requests": {"cpu": "1", "memory": "1Gi"}},
    "trainerResources": {"requests": {"cpu": "250m"}},
}
"""On two cores users share the processor with training: theirs is the larger part."""


class NotShown(RuntimeError):  # noqa: N818 - it reads as what it is
    """Something that the demo promises did not happen."""


@dataclass
class Shown:
    """What the last table needs."""

    jobs: dict[str, Manifest] = field(default_factory=dict)
    rollouts: dict[str, Manifest] = field(default_factory=dict)
    """Rollout as it was after each chapter, by version."""
    traffic: Traffic | None = None


def start_cluster(story: Story) -> Environment:
    """The development cluster; its own progress lines are the story here."""
    story.chapter("A cluster")
    if subprocess.run([sys.executable, ROOT / "hack" / "cluster", "up"], check=False).returncode:
        raise NotShown("the development cluster did not start; its words are above")
    env = Environment()
    story.say(f"Kubernetes from the provider '{env.info['provider']}'; look around with KUBECONFIG=.cluster/kubeconfig")
    return env


def bring_model_and_data(story: Story, env: Environment) -> None:
    """SmolLM2 and three data sets into S3."""
    story.chapter("A model and data, in S3")
    folder = CACHE / "base-model" / "smollm2-135m"
    with story.bar("SmolLM2-135M-Instruct from its Python package") as bar:
        bar.show(10)
        _quietly(lambda: write_base_model(folder))
        bar.show(60, "uploading")
        for bucket in ("models", "datasets"):
            env.bucket(bucket)
        env.upload(folder, "models", BASE)
    story.say(
        f"s3://models/{BASE}: SmolLM2-135M-Instruct, {sum(f.stat().st_size for f in folder.iterdir()) / 1e6:.0f} MB"
    )
    for name, content in data_sets(docstring_pairs()).items():
        env.s3().put_object(Bucket="datasets", Key=name, Body=content)
        rows = len(content.splitlines())
        story.say(f"s3://datasets/{name}: {rows} rows of the standard library's docstrings")


def install_operator(story: Story, env: Environment, images: str) -> None:
    """The chart, as a user installs it."""
    story.chapter("The operator, by Helm")
    if images == "real":
        subprocess.run([ROOT / "hack" / "images"], check=True)
    env.namespace(NAMESPACE)
    forget_earlier_demo(env)
    with story.bar("helm upgrade --install tuningfork charts/tuningfork") as bar:
        bar.show(30)
        env.install(env.values(images, **SETTINGS))
    story.say("two replicas; one leads, the other can take over within 15 seconds")


def forget_earlier_demo(env: Environment) -> None:
    """A second demo on the same cluster starts from the beginning: objects and results of the first go."""
    for kind in ("rollouts.tuningfork.dev", "finetunejobs.tuningfork.dev", "modelversions.tuningfork.dev"):
        try:
            env.kubectl("delete", kind, "--all", "-n", NAMESPACE, "--wait=true")
        except CommandError as error:
            if "the server doesn't have a resource type" not in str(error):
                raise
    client = env.s3()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="models", Prefix=f"runs/{NAMESPACE}/")
    for key in [item["Key"] for page in pages for item in page.get("Contents", [])]:
        client.delete_object(Bucket="models", Key=key)


def run_job(story: Story, env: Environment, name: str, shown: Shown) -> Manifest:
    """Applies a job and follows it to its end."""
    env.kubectl("apply", "--validate=strict", "-f", str(EXAMPLES / f"{name}.yaml"))
    story.say(f"kubectl apply -f examples/demo/{name}.yaml")
    phases: list[str] = []
    with story.bar(name) as bar:

        def step() -> Manifest | None:
            job = env.get("finetunejobs.tuningfork.dev", name, NAMESPACE) or {}
            status = job.get("status", {})
            phase, progress = status.get("phase", "Pending"), status.get("progress", {})
            if phase not in phases:
                phases.append(phase)
            loss = (
                f"step {progress['step']}/{progress['totalSteps']} loss {progress['loss']:.2f}"
                if progress.get("loss")
                else ""
            )
            bar.show(progress.get("percent", 0), loss, f"{name}: {phase}")
            return job if phase in ("Succeeded", "Rejected", "Failed") else None

        job: Manifest = wait_until(step, within=900, what=f"job {name}", every=1)
    shown.jobs[name] = job
    status = job["status"]
    story.say(f"{' > '.join(phases)}: {status['message']}")
    if status["phase"] != "Succeeded" or not status.get("modelVersion"):
        raise NotShown(f"job {name} ended {status['phase']}: {status['message']}")
    tell_job(story, status)
    return job


def tell_job(story: Story, status: Manifest) -> None:
    """What became of the data, and what it was good for."""
    data, evaluation = status["data"], status["evaluation"]
    removed = ", ".join(f"{count} {reason}" for reason, count in data.get("removed", {}).items()) or "none"
    redacted = ", ".join(f"{count} {kind}" for kind, count in data.get("redacted", {}).items()) or "nothing"
    story.say(f"data: {data['kept']} of {data['read']} rows kept (removed: {removed}; redacted: {redacted})")
    base, tuned = evaluation["baseline"]["perplexity"], evaluation["tuned"]["perplexity"]
    gates = (
        ", ".join(f"{g['metric']} ratio {g['ratio']:.2f} <= {g['threshold']}" for g in evaluation.get("gates", []))
        or "no gates"
    )
    story.say(
        f"perplexity on held-out answers: {base:.1f} before, {tuned:.1f} after ({gates}) -> {status['modelVersion']}"
    )


def roll_out(env: Environment, version: str) -> None:
    """What a person or Argo CD does: applies the Rollout with another production version."""
    manifest = yaml.safe_load((EXAMPLES / "rollout.yaml").read_text())
    manifest["spec"]["tracks"]["production"]["version"] = version
    env.apply(manifest)


def follow_rollout(story: Story, env: Environment, version: str, shown: Shown, *, within: float) -> Manifest:
    """Tells every change of the split until the version is stable or has failed."""
    told = {entry["at"] + entry["why"] for entry in _rollout(env).get("status", {}).get("history", [])}
    with story.bar(f"{version}") as bar:

        def step() -> Manifest | None:
            rollout = _rollout(env)
            status = rollout.get("status", {})
            for entry in status.get("history", []):
                if entry["at"] + entry["why"] not in told:
                    told.add(entry["at"] + entry["why"])
                    split = " / ".join(f"{name} {weight}" for name, weight in entry["weights"].items())
                    story.say(f"[cyan]{split:<36}[/cyan] {entry['why']}")
            candidate = status.get("candidate") or {}
            bar.show(candidate.get("weight", 0), status.get("message", "")[:100], f"{version} {status.get('step', '')}")
            fresh = status.get("observedGeneration") == rollout["metadata"]["generation"]
            done = (
                fresh
                and not candidate
                and status.get("acknowledged")
                and status.get("phase") in ("Healthy", "Degraded")
            )
            decided = status.get("stable", {}).get("version") == version or any(
                f["version"] == version for f in status.get("failed", [])
            )
            return rollout if done and decided else None

        rollout: Manifest = wait_until(step, within=within, what=f"the rollout of {version}", every=1)
    shown.rollouts[version] = rollout
    return rollout


def first_version(story: Story, env: Environment, shown: Shown, stack: ExitStack) -> None:
    """A job, its version, and users."""
    story.chapter("A first model: from data to production")
    version = run_job(story, env, JOBS[0], shown)["status"]["modelVersion"]
    roll_out(env, version)
    story.say("kubectl apply -f examples/demo/rollout.yaml")
    status = follow_rollout(story, env, version, shown, within=300)["status"]
    if status["phase"] != "Healthy":
        raise NotShown(f"{version} does not serve: {status['message']}")
    url = stack.enter_context(env.service(ROLLOUT, NAMESPACE))
    shown.traffic = Traffic(url, ROLLOUT, docstring_pairs()[-100:], rate=1.0, concurrency=6)
    shown.traffic.start()
    stack.callback(shown.traffic.stop)
    story.say(f"{version} serves everybody; users ask it through the openai client at {url}/v1")


def better_version(story: Story, env: Environment, shown: Shown) -> None:
    """A second job walks all steps under load."""
    story.chapter("A better model: canary, staging, production, under load")
    version = run_job(story, env, JOBS[1], shown)["status"]["modelVersion"]
    _load(shown, 4.0)
    roll_out(env, version)
    status = follow_rollout(story, env, version, shown, within=420)["status"]
    if status["phase"] != "Healthy":
        raise NotShown(f"{version} was not promoted: {status['message']}")
    tell_metrics(story, status, version)


def bad_version(story: Story, env: Environment, shown: Shown) -> None:
    """A healthy, wrong version is stopped by what its users say."""
    story.chapter("A bad model that answers every request with 200")
    _load(shown, 1.0)
    version = run_job(story, env, JOBS[2], shown)["status"]["modelVersion"]
    _load(shown, 4.0)
    roll_out(env, version)
    status = follow_rollout(story, env, version, shown, within=300)["status"]
    if status["stable"]["version"] == version:
        raise NotShown(f"{version} was promoted although its users rated it down")
    if (most := max(entry["weights"].get(version, 0) for entry in status["history"])) > CANARY:
        raise NotShown(f"{version} left canary: it had {most} % before it was stopped")
    failed = next(f for f in status["failed"] if f["version"] == version)
    story.say(f"[bold]stopped:[/bold] {failed['message']}")
    tell_metrics(story, status, version)
    time.sleep(10)  # answers that were under way come in, and stable shows that it has everybody back


def tell_metrics(story: Story, status: Manifest, version: str) -> None:
    """The version's analysis, a line a metric."""
    for metric in status.get("metrics", []):
        if metric["subject"] == version:
            story.say(f"{version}: {metric['verdict']}: {metric.get('message', '')}")


def _load(shown: Shown, rate: float) -> None:
    if shown.traffic:
        shown.traffic.rate = rate


def _rollout(env: Environment) -> Manifest:
    return env.get("rollouts.tuningfork.dev", ROLLOUT, NAMESPACE) or {"metadata": {"generation": 0}}


def _quietly(work: Any) -> None:
    """Libraries print progress bars of their own; the story has one."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        work()
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
