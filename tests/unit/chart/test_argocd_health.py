"""The health check for Argo CD, run by a real Lua on statuses of the three kinds."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from argocd import SCRIPT, health
from chart import Manifest, render
from tuningfork.api import ApiModel, FineTuneJobStatus, ModelVersionStatus, RolloutStatus
from tuningfork.api.crds import KINDS
from tuningfork.api.reference import CONDITIONS

FILES = sorted((Path(__file__).parent / "statuses").glob("*.yaml"))
HEALTHS = {"healthy", "progressing", "degraded", "suspended"}
MODELS: dict[str, type[ApiModel]] = {
    "FineTuneJob": FineTuneJobStatus,
    "ModelVersion": ModelVersionStatus,
    "Rollout": RolloutStatus,
}


def load(path: Path) -> Manifest:
    manifest: Manifest = yaml.safe_load(path.read_text())
    return manifest


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_health(path: Path) -> None:
    manifest = load(path)
    found = health(manifest)
    assert found["status"] == path.stem.split("-")[0].capitalize()
    seen = manifest.get("status", {}).get("observedGeneration") == manifest["metadata"]["generation"]
    assert found["message"] == (manifest["status"]["message"] if seen else found["message"])
    assert found["message"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_status_is_one_that_the_operator_can_write(path: Path) -> None:
    manifest = load(path)
    types, reasons = CONDITIONS[manifest["kind"]]
    status = MODELS[manifest["kind"]].model_validate(manifest.get("status", {})).dump()
    conditions = status.get("conditions", [])
    assert [c["reason"] for c in conditions if c["reason"] not in reasons.__members__] == []
    assert [c["type"] for c in conditions if c["type"] not in set(types)] == []


def test_each_kind_is_seen_in_each_health_that_it_can_have() -> None:
    seen = {(load(path)["kind"], path.stem.split("-")[0]) for path in FILES}
    possible = {(kind, state) for kind in MODELS for state in HEALTHS} - {("ModelVersion", "suspended")}
    assert seen == possible


def test_a_message_says_what_is_awaited() -> None:
    new: Manifest = {"metadata": {"generation": 1}}
    assert health(new) == {"status": "Progressing", "message": "Waiting for the operator"}
    stale = {"metadata": {"generation": 2}, "status": {"observedGeneration": 1, "conditions": []}}
    assert health(stale) == {
        "status": "Progressing",
        "message": "Waiting for the operator to see the latest change",
    }


def test_a_degraded_object_says_why_even_without_a_message_of_its_own() -> None:
    stalled: dict[str, Any] = {"type": "Stalled", "status": "True", "message": "no such bucket"}
    manifest = {"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "conditions": [stalled]}}
    assert health(manifest) == {"status": "Degraded", "message": "no such bucket"}


def test_the_chart_offers_the_script_for_each_kind() -> None:
    (found,) = (o for o in render({"argocd": {"enabled": True}}) if o["metadata"]["name"] == "tuningfork-argocd")
    assert found["data"] == {
        f"resource.customizations.health.tuningfork.dev_{kind.model.__name__}": SCRIPT.read_text() for kind in KINDS
    }
