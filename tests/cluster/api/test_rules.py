"""Every CEL rule, on a real API server, with an object that it refuses; a rule without such an object fails here."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from devcluster.console import ClusterError
from support.api_objects import Manifest, make_job, make_rollout, make_version
from support.api_server import Api
from tuningfork.api.crds import KINDS, build_crd


class Refused(NamedTuple):
    """An object that a rule refuses; with ``before``, as a change of that."""

    message: str
    """How the rule's message begins."""
    manifest: Manifest
    before: Manifest | None = None


def metric(**fields: Any) -> Manifest:
    return {"name": "errors", **fields}


def steps(*weights: int) -> list[Manifest]:
    return [{"track": "canary", "weight": weight, "hold": "1m"} for weight in weights]


RATE = metric(template="ErrorRate", compareTo="Production", maxIncrease=0.01)
NAME = "metadata.name: at most"
FILE = "spec: a cluster reads s3:// only"

CASES = {
    "a job's name of 41 characters": Refused(f"{NAME} 40", make_job("a" * 41)),
    "a job's name that begins with a digit": Refused(f"{NAME} 40", make_job("1job")),
    "a rollout's name of 41 characters": Refused(f"{NAME} 40", make_rollout("a" * 41)),
    "a version's name of 51 characters": Refused(f"{NAME} 50", make_version("a" * 51)),
    "a base model in a file": Refused(FILE, make_job(model__uri="file:///models/base")),
    "an output in a file": Refused(FILE, make_job(output__uri="file:///runs")),
    "data in a file": Refused(FILE, make_job(data__sources=[{"name": "a", "uri": "file:///a.jsonl"}])),
    "a split of nine tenths": Refused("split: train, validation and test", make_job(data__split={"train": 0.7})),
    "a split of eleven tenths": Refused("split: train, validation and test", make_job(data__split={"train": 0.9})),
    "a gate that compares with a baseline that is not measured": Refused(
        "evaluation: a gate compares to Baseline",
        make_job(evaluation={"baseline": False, "gates": [{"metric": "perplexity", "maxRatio": 0.9}]}),
    ),
    "another artifact for a version": Refused(
        "a ModelVersion's spec is immutable",
        make_version(artifact__uri="s3://models/runs/2"),
        before=make_version(),
    ),
    "an artifact in a file": Refused("spec.artifact.uri", make_version(artifact__uri="file:///runs/1")),
    "a version's base model in a file": Refused("spec.base.uri", make_version(base__uri="file:///models/base")),
    "no step on a progressive walk": Refused(
        "strategy.steps: Progressive and Manual need", make_rollout(strategy={"steps": []})
    ),
    "no step on a manual walk": Refused(
        "strategy.steps: Progressive and Manual need", make_rollout(strategy={"promotion": "Manual", "steps": []})
    ),
    "steps that fall": Refused("strategy.steps: weights must rise", make_rollout(strategy__steps=steps(20, 10))),
    "steps that stay": Refused("strategy.steps: weights must rise", make_rollout(strategy__steps=steps(10, 10))),
    "a metric with nothing to measure": Refused(
        "analysis.metrics: give either template or query", make_rollout(analysis__metrics=[metric(max=1)])
    ),
    "a metric with both template and query": Refused(
        "analysis.metrics: give either template or query",
        make_rollout(analysis__metrics=[metric(template="ErrorRate", query="up", max=1)]),
    ),
    "a metric without a limit": Refused(
        "analysis.metrics: give exactly one of", make_rollout(analysis__metrics=[metric(template="ErrorRate")])
    ),
    "a metric with two limits": Refused(
        "analysis.metrics: give exactly one of",
        make_rollout(analysis__metrics=[metric(template="ErrorRate", min=0, max=1)]),
    ),
    "a comparison with an absolute limit": Refused(
        "analysis.metrics: maxIncrease goes with compareTo",
        make_rollout(analysis__metrics=[metric(template="ErrorRate", compareTo="Production", max=1)]),
    ),
    "an increase over nothing": Refused(
        "analysis.metrics: maxIncrease goes with compareTo",
        make_rollout(analysis__metrics=[metric(template="ErrorRate", maxIncrease=0.1)]),
    ),
    "a comparison of latencies": Refused(
        "analysis.metrics: compareTo works with the rates",
        make_rollout(analysis__metrics=[metric(template="LatencyP95", compareTo="Production", maxIncrease=0.1)]),
    ),
    "a comparison of a query": Refused(
        "analysis.metrics: compareTo works with the rates",
        make_rollout(analysis__metrics=[metric(query="up", compareTo="Production", maxIncrease=0.1)]),
    ),
    "samples of a query": Refused(
        "analysis.metrics: minSamples goes with a template",
        make_rollout(analysis__metrics=[metric(query="up", max=1, minSamples=5)]),
    ),
    "another model for a rollout": Refused(
        "spec.model is immutable", make_rollout(model="sales"), before=make_rollout()
    ),
    "another base model for a rollout": Refused(
        "spec.serving.base is immutable",
        make_rollout(serving__base__uri="s3://models/base/other"),
        before=make_rollout(),
    ),
    "a served base model in a file": Refused(
        "spec.serving.base.uri", make_rollout(serving__base__uri="file:///models/base")
    ),
    "pins of 101 per cent": Refused(
        "spec.tracks: the weights of staging and canary",
        make_rollout(
            strategy={"promotion": "Immediate", "steps": []},
            tracks__staging={"version": "support-v2", "weight": 60},
            tracks__canary={"version": "support-v3", "weight": 41},
        ),
    ),
    "a step of 51 per cent with an equally large baseline": Refused(
        "spec.strategy.steps: a step's weight",
        make_rollout(strategy__steps=steps(51), analysis__metrics=[RATE]),
    ),
    "a step of 81 per cent beside a pin of 20": Refused(
        "spec.strategy.steps: a step's weight",
        make_rollout(strategy__steps=steps(81), tracks__staging={"version": "support-v2", "weight": 20}),
    ),
    "another method while a job trains": Refused(
        "spec is immutable while the job runs",
        make_job(method__lora__rank=16),
        before={**make_job(), "status": {"phase": "Training"}},
    ),
}
"""By what is wrong."""

ACCEPTED = {
    "the smallest job": make_job(),
    "a job's name of 40 characters": make_job("a" * 40),
    "a split in thirds": make_job(data__split={"train": 0.334, "validation": 0.333, "test": 0.333}),
    "no baseline where no gate compares": make_job(evaluation={"baseline": False}),
    "the smallest version": make_version(),
    "a version's name of 50 characters": make_version("a" * 50),
    "the smallest rollout": make_rollout(),
    "no step where none is walked": make_rollout(strategy={"promotion": "Immediate", "steps": []}),
    "sixteen rising steps": make_rollout(strategy__steps=steps(*range(1, 17))),
    "half of everybody against the other half": make_rollout(strategy__steps=steps(50), analysis__metrics=[RATE]),
    "a step that displaces the pin of its track": make_rollout(
        strategy__steps=steps(90), tracks__canary={"version": "support-v2", "weight": 20}
    ),
    "a query with a limit": make_rollout(analysis__metrics=[metric(query="max(up)", min=1)]),
}
"""Just inside the rules."""


def rules(node: Mapping[str, Any], kind: str) -> Iterator[tuple[str, str]]:
    """(kind, message) of every rule in a schema."""
    yield from ((kind, rule["message"]) for rule in node.get("x-kubernetes-validations", ()))
    for child in (*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")):
        if isinstance(child, Mapping):
            yield from rules(child, kind)


def all_rules() -> list[tuple[str, str]]:
    schemas = {k.model.__name__: build_crd(k)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for k in KINDS}
    return [rule for kind, schema in schemas.items() for rule in rules(schema, kind)]


@pytest.mark.parametrize(("kind", "message"), all_rules())
def test_every_rule_has_an_object_that_it_refuses(kind: str, message: str) -> None:
    cases = CASES.values()
    assert any(case.manifest["kind"] == kind and message.startswith(case.message) for case in cases), message


@pytest.mark.cluster
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_rule_refuses(api: Api, case: Refused) -> None:
    if case.before is None:
        with pytest.raises(ClusterError, match=re.escape(case.message)):
            api.create(case.manifest, "--dry-run=server")
        return
    try:
        created = api.create(case.before)
        if "status" in case.before:
            api.set_status(created, case.before["status"])
        with pytest.raises(ClusterError, match=re.escape(case.message)):
            api.replace(case.manifest, "--dry-run=server")
    finally:
        api.delete(case.before)


@pytest.mark.cluster
@pytest.mark.parametrize("manifest", ACCEPTED.values(), ids=ACCEPTED)
def test_the_rules_accept(api: Api, manifest: Manifest) -> None:
    assert api.create(manifest, "--dry-run=server")["metadata"]["name"] == manifest["metadata"]["name"]
