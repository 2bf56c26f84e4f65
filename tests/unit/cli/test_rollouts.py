"""status, tree, watch, promote, abort, retry as a person calls them."""

import json
import re
from typing import Any

import pytest
from click.testing import CliRunner, Result

from support.memory_api import MemoryApi
from support.rollout_world import Traffic, World, serving
from tuningfork.api._meta import ANNOTATION_COMMANDS
from tuningfork.cli import main
from tuningfork.cli.tree import rollout_tree
from tuningfork.planning.plan import Manifest

ROLLOUT = "/apis/tuningfork.dev/v1alpha1/namespaces/ml/rollouts/support"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    """call(objects, *arguments) runs the command against an API server that holds them."""
    monkeypatch.setenv("KUBECONFIG", "unused")

    def run(objects: dict[str, Manifest], *arguments: str) -> tuple[Result, MemoryApi]:
        api = MemoryApi(*objects.items())

        async def connect() -> Any:
            return api.client()

        monkeypatch.setattr("tuningfork.cli.objects.connect", connect)
        return CliRunner().invoke(main, list(arguments)), api

    return run


def rollout(world: World) -> dict[str, Manifest]:
    obj = world.observe().raw
    return {ROLLOUT: obj | {"metadata": obj["metadata"] | {"resourceVersion": "1"}}}


def walking() -> World:
    return serving().ask_for("support-v2").run_until(lambda w: w.seen.step == "2/3")


def rolled_back() -> World:
    world = serving().ask_for("support-v2")
    world.traffic["support-v2"] = Traffic(bad=0.9)
    return world.run_until(lambda w: w.seen.phase == "Degraded").run(5)


def versions(*conditions: tuple[str, str]) -> dict[str, Manifest]:
    status = {"conditions": [{"type": t, "status": s, "reason": "x"} for t, s in conditions], "message": "said"}
    metadata = {"name": "v1", "namespace": "ml", "resourceVersion": "1"}
    path = "/apis/tuningfork.dev/v1alpha1/namespaces/ml/modelversions/v1"
    return {path: {"kind": "ModelVersion", "metadata": metadata, "spec": {}, "status": status}}


def job(phase: str, generation: int = 1) -> dict[str, Manifest]:
    metadata = {"name": "a", "namespace": "ml", "generation": generation, "resourceVersion": "1"}
    status = {"phase": phase, "message": "said", "observedGeneration": 1}
    path = "/apis/tuningfork.dev/v1alpha1/namespaces/ml/finetunejobs/a"
    return {path: {"kind": "FineTuneJob", "metadata": metadata, "spec": {}, "status": status}}


@pytest.mark.parametrize(
    ("objects", "name", "code"),
    [
        pytest.param(rollout(serving()), "tro/support", 0, id="a healthy rollout"),
        pytest.param(rollout(walking()), "rollouts.tuningfork.dev/support", 3, id="a walking rollout"),
        pytest.param(rollout(rolled_back()), "rollout/support", 1, id="a rolled back rollout"),
        pytest.param(rollout(World()), "tro/support", 3, id="a rollout that nobody has seen"),
        pytest.param(job("Succeeded"), "ftj/a", 0, id="a job that succeeded"),
        pytest.param(job("Training"), "ftj/a", 3, id="a job that trains"),
        pytest.param(job("Rejected"), "finetunejob/a", 1, id="a job whose gate said no"),
        pytest.param(job("Succeeded", generation=2), "ftj/a", 3, id="a status that speaks of an older spec"),
        pytest.param(versions(("Ready", "True")), "mv/v1", 0, id="a verified version"),
        pytest.param(versions(("Ready", "False"), ("Stalled", "True")), "mv/v1", 1, id="a broken version"),
        pytest.param(versions(("Ready", "Unknown")), "mv/v1", 3, id="a version being verified"),
    ],
)
def test_the_exit_status_says_whether_it_is_well(call: Any, objects: dict[str, Manifest], name: str, code: int) -> None:
    for command in (["status"], ["watch", "--timeout", "0"]):
        result, _ = call(objects, *command, name, "-n", "ml")
        assert result.exit_code == code, result.output


def test_status_shows_weights_and_metrics(call: Any) -> None:
    result, _ = call(rollout(walking()), "status", "tro/support", "-n", "ml")
    lines = result.output.splitlines()
    assert lines[0].startswith("Rollout ml/support: Progressing: support-v2 on step 2/3: 30 % on staging")
    assert "  weights        support-v1 70 / support-v2 30, step 2/3" in lines
    assert any(line.startswith("  support-v2 Pass: feedback: ") for line in lines)


def test_status_as_json_is_the_status(call: Any) -> None:
    world = walking()
    result, _ = call(rollout(world), "status", "tro/support", "-n", "ml", "-o", "json")
    assert json.loads(result.output) == world.status


def test_tree_shows_versions_why_one_failed_and_what_serves() -> None:
    labels = {"tuningfork.dev/rollout": "support", "tuningfork.dev/component": "engine"}
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": "support-engine", "namespace": "ml", "labels": labels, "resourceVersion": "1"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}},
        "status": {"readyReplicas": 1},
    }
    waiting = [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]
    pod = {
        "kind": "Pod",
        "metadata": {"name": "engine-a", "namespace": "ml", "labels": labels, "resourceVersion": "1"},
        "status": {"phase": "Pending", "containerStatuses": waiting},
    }
    lines = rollout_tree(rolled_back().observe().raw, [deployment], [pod])
    assert lines[1] == "├── production: support-v1 100 % (stable, Serving)"
    assert any(re.match(r"├── failed: support-v2 RolledBack, back on stable after [\d.]+ s$", line) for line in lines)
    assert lines[-2:] == ["└── Deployment support-engine: 1/2 ready", "    └── Pod engine-a: ImagePullBackOff"]


@pytest.mark.parametrize(
    ("world", "arguments", "verb", "expected"),
    [
        pytest.param(walking(), ["promote"], "promote", "support-v2/1/", id="promote names the step that is shown"),
        pytest.param(walking(), ["promote", "--full"], "promote-full", "support-v2/1/", id="promote in full"),
        pytest.param(walking(), ["abort"], "abort", "support-v2/1/", id="abort"),
        pytest.param(serving(), ["abort", "--version", "support-v3"], "abort", "support-v3/0/", id="abort a pin"),
        pytest.param(rolled_back(), ["retry"], "retry", "support-v2/0/", id="retry what failed last"),
    ],
)
def test_a_command_becomes_an_annotation_that_the_planner_understands(
    call: Any, world: World, arguments: list[str], verb: str, expected: str
) -> None:
    result, api = call(rollout(world), arguments[0], "tro/support", "-n", "ml", *arguments[1:])
    assert result.exit_code == 0, result.output
    assert api.writes == [("PATCH", ROLLOUT)]
    value = api.objects[ROLLOUT]["metadata"]["annotations"][ANNOTATION_COMMANDS[verb]]
    assert re.fullmatch(re.escape(expected) + "[0-9a-f]{8}", value)


@pytest.mark.parametrize(
    ("objects", "arguments", "says"),
    [
        pytest.param(rollout(serving()), ["promote", "tro/support"], "no candidate to promote", id="nobody walks"),
        pytest.param(rollout(serving()), ["retry", "tro/support"], "nothing to retry", id="nothing failed"),
        pytest.param({}, ["status", "tro/support"], "Rollout ml/support does not exist", id="missing"),
        pytest.param({}, ["status", "deploy/x"], "is not one of ftj/NAME, mv/NAME, tro/NAME", id="another kind"),
        pytest.param(job("Failed"), ["abort", "ftj/a"], "abort is for Rollouts", id="not for jobs"),
    ],
)
def test_what_cannot_be_done_is_said(call: Any, objects: dict[str, Manifest], arguments: list[str], says: str) -> None:
    result, api = call(objects, *arguments, "-n", "ml")
    assert result.exit_code != 0
    assert says in result.output
    assert api.writes == []
