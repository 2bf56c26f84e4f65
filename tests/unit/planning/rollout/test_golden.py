"""Whole plans, compared with files: what every Rollout in every cluster will get.

`--update-golden` rewrites them; read the difference before committing it. A Rollout's world is too large to be a file (pods, loaders,
routers, counted traffic), so each case is told in a line and only its outcome is written down.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.rollout_world import SETTINGS, Traffic, World, serving
from tuningfork.planning.plan import Manifest, Plan
from tuningfork.planning.rollout import plan_rollout
from tuningfork.planning.rollout.children import TEMPLATE_ANNOTATION, TEMPLATE_HASH_ANNOTATION

GOLDEN = Path(__file__).parent / "golden"


def rolled_back() -> World:
    world = serving().ask_for("support-v2")
    world.traffic["support-v2"] = Traffic(bad=0.9)
    return world.run_until(lambda w: w.seen.phase == "Degraded").run(5)


def walking() -> World:
    world = serving().edit(lambda spec: spec["tracks"].update(staging={"version": "support-v3", "weight": 10}))
    return world.run(20).ask_for("support-v2").run(30)


CASES: dict[str, Callable[[], World]] = {
    "created": World,
    "walks-beside-a-pin": walking,
    "rolled-back": rolled_back,
}


@pytest.mark.parametrize("case", CASES)
def test_the_whole_plan_is_as_written(case: str, update_golden: bool) -> None:
    world, path = CASES[case](), GOLDEN / f"{case}.yaml"
    seen = dump(plan_rollout(world.observe(), world.now), whole=case == "created")
    if update_golden:
        path.write_text(yaml.safe_dump(seen, sort_keys=False, width=140))
    assert seen == yaml.safe_load(path.read_text())


def test_every_golden_file_has_a_case() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


def dump(plan: Plan, *, whole: bool) -> dict[str, Any]:
    """The plan; after the first case only the tables and the status, because the other objects never change."""
    children = [readable(child) for child in plan.apply if whole or child["kind"] == "ConfigMap"]
    out = {"apply": children, "status": plan.status, "events": [list(e) for e in plan.events], "why": list(plan.why)}
    return json.loads(json.dumps(out))  # type: ignore[no-any-return]


def readable(child: Manifest) -> Manifest:
    """JSON inside of JSON opened; the kept template must be the template."""
    child = json.loads(json.dumps(child))
    for key, text in child.get("data", {}).items():
        child["data"][key] = json.loads(text)
    annotations = child["metadata"].get("annotations", {})
    if TEMPLATE_ANNOTATION in annotations:
        assert json.loads(annotations[TEMPLATE_ANNOTATION]) == child["spec"]["template"]
        annotations[TEMPLATE_ANNOTATION] = "(the template)"
    return child


def engine(world: World) -> Manifest:
    return world.children["Deployment", "support-engine"]["spec"]["template"]  # type: ignore[no-any-return]


def test_no_version_and_no_upgrade_of_the_operator_restarts_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    world = serving()
    before = engine(world)
    images = SETTINGS.images.model_copy(update={"serving": "serving:2"})
    monkeypatch.setattr(
        "support.rollout_world.SETTINGS", SETTINGS.model_copy(update={"images": images, "engine_args": ["--x"]})
    )
    world.ask_for("support-v2").run_until(lambda w: w.seen.phase == "Healthy")
    assert engine(world) == before
    router = world.children["Deployment", "support-router"]["spec"]["template"]["spec"]["containers"][0]
    assert router["image"] == "serving:2", "routers follow"

    child = world.children["Deployment", "support-engine"]
    del child["metadata"]["annotations"][TEMPLATE_ANNOTATION]
    world.reconcile()
    assert engine(world)["spec"]["containers"][0]["image"] == "serving:2", "without the annotation it is rendered anew"


@pytest.mark.parametrize("kept", ["{", "[1]"])
def test_a_kept_template_that_nobody_can_read_is_rendered_anew(kept: str) -> None:
    world = serving()
    before = engine(world)
    world.children["Deployment", "support-engine"]["metadata"]["annotations"][TEMPLATE_ANNOTATION] = kept
    world.reconcile()
    assert engine(world) == before


def test_a_template_of_another_engine_is_rendered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    world = serving()
    images = SETTINGS.images.model_copy(update={"serving": "serving:2"})
    monkeypatch.setattr("support.rollout_world.SETTINGS", SETTINGS.model_copy(update={"images": images}))
    world.children["Deployment", "support-engine"]["metadata"]["annotations"][TEMPLATE_HASH_ANNOTATION] = "another"
    world.tick()
    assert engine(world)["spec"]["containers"][0]["image"] == "serving:2"


def test_replicas_are_left_to_an_autoscaler_when_the_spec_has_none() -> None:
    world = World(serving={"base": {"uri": "s3://models/base/tiny"}})
    world.tick()
    assert "replicas" not in world.children["Deployment", "support-engine"]["spec"]


def test_an_engine_argument_of_the_administrator_replaces_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    more = SETTINGS.model_copy(update={"engine_args": ["--max-loras", "16", "--dtype", "bfloat16"]})
    monkeypatch.setattr("support.rollout_world.SETTINGS", more)
    world = World()
    world.tick()
    command = engine(world)["spec"]["containers"][0]["command"]
    assert command.count("--max-loras") == 1
    assert command[-4:] == ["--max-loras", "16", "--dtype", "bfloat16"]
