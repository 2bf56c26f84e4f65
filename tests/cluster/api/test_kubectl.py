"""What kubectl shows of the three kinds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api_objects import Manifest, make_job, make_rollout, make_version
from support.api_server import Api

pytestmark = pytest.mark.cluster

NOW = "2026-01-31T12:00:00Z"


@pytest.fixture
def objects(api: Api) -> Iterator[None]:
    """One object of each kind, with the status of one that is on its way."""
    ready = {"type": "Ready", "status": "False", "reason": "Walking", "lastTransitionTime": NOW}
    verified = {"type": "Verified", "status": "True", "reason": "Verified", "lastTransitionTime": NOW}
    since = {"digest": "sha256:" + "a" * 64, "adapter": "a", "uri": "s3://models/runs/1"}
    statuses: list[tuple[Manifest, Manifest]] = [
        (make_job(), {"phase": "Training", "message": "trains", "progress": {"percent": 40, "loss": 1.25}}),
        (make_version(), {"stage": "Production", "message": "serves", "conditions": [verified]}),
        (
            make_rollout(),
            {
                "phase": "Progressing",
                "message": "walks",
                "stable": {"version": "support-v1", **since},
                "candidate": {"version": "support-v2", **since, "state": "Walking", "walk": "w1"},
                "step": "1/3",
                "weights": "support-v1 95 / support-v2 5",
                "conditions": [ready],
            },
        ),
    ]
    for manifest, status in statuses:
        api.create(manifest)
        api.set_status(manifest, status)
    yield
    for manifest, _ in statuses:
        api.delete(manifest)


def table(text: str) -> list[str]:
    """Cells of the header and of the one row, ages left out."""
    return [" ".join(line.split()) for line in text.strip().splitlines()]


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        pytest.param(
            "ftj", ["NAME PHASE PROGRESS LOSS VERSION AGE", "job Training 40 1.25 "], id="a job's progress and loss"
        ),
        pytest.param(
            "mv", ["NAME MODEL STAGE VERIFIED AGE", "support-v1 support Production True "], id="a version's stage"
        ),
        pytest.param(
            "tro",
            [
                "NAME MODEL PHASE STABLE CANDIDATE STEP WEIGHTS READY AGE",
                "support support Progressing support-v1 support-v2 1/3 support-v1 95 / support-v2 5 False ",
            ],
            id="a rollout's weights and health",
        ),
    ],
)
def test_get_shows(api: Api, objects: None, kind: str, shown: list[str]) -> None:
    header, row = table(api("get", kind))
    assert header == shown[0]
    assert row.startswith(shown[1])


@pytest.mark.parametrize(
    ("kind", "message"), [("ftj", "trains"), ("mv", "serves"), ("tro", "walks")], ids=["job", "version", "rollout"]
)
def test_get_wide_shows_the_message(api: Api, objects: None, kind: str, message: str) -> None:
    header, row = table(api("get", kind, "-o", "wide"))
    assert "MESSAGE" in header
    assert message in row


def test_one_word_gets_all_three(api: Api, objects: None) -> None:
    assert set(api("get", "tuningfork", "-o", "name").split()) == {
        "finetunejob.tuningfork.dev/job",
        "modelversion.tuningfork.dev/support-v1",
        "rollout.tuningfork.dev/support",
    }


@pytest.mark.parametrize(
    ("path", "description"),
    [
        ("finetunejob.spec.method.lora.rank", "Rank of the update; trainable parameters grow linearly with it."),
        ("modelversion.spec.artifact.digest", "sha256 of manifest.json, which has the sha256 of every file."),
        ("rollouts.spec.strategy.steps.hold", "How long it stays at least"),
    ],
)
def test_explain_describes_fields(api: Api, path: str, description: str) -> None:
    explained = api("explain", path, "--api-version=tuningfork.dev/v1alpha1")
    assert description in " ".join(explained.split())


ARGO_ROLLOUTS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "rollouts.argoproj.io"},
    "spec": {
        "group": "argoproj.io",
        "scope": "Namespaced",
        "names": {"kind": "Rollout", "plural": "rollouts", "singular": "rollout", "shortNames": ["ro"]},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@pytest.fixture
def beside_argo(api: Api, tmp_path: Path) -> Iterator[Api]:
    """The same namespace where another product's kind has the plural name too; kubectl has not looked before."""
    api("apply", "--server-side", "-f", "-", stdin=ARGO_ROLLOUTS)
    api("wait", "--for=condition=Established", "crd/rollouts.argoproj.io", "--timeout=30s")
    yield Api(api.kubectl, api.namespace, tmp_path)
    api("delete", "crd", "rollouts.argoproj.io")


@pytest.mark.parametrize("name", ["tro", "rollouts.tuningfork.dev"])
def test_our_rollouts_are_found_beside_argos(beside_argo: Api, objects: None, name: str) -> None:
    assert beside_argo("get", name, "-o", "name") == "rollout.tuningfork.dev/support\n"
