"""Lint of our own CRDs, after Kubernetes' API conventions, where the API server itself would say nothing."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from tuningfork.api._base import ApiModel
from tuningfork.api.crds import KINDS, Kind, build_crd, structural_schema

Schema = Mapping[str, Any]

FLOATS = {
    "FineTuneJob.spec.method.lora.dropout": "a share, as every training library has it",
    "FineTuneJob.spec.data.split.train": "a share",
    "FineTuneJob.spec.data.split.validation": "a share",
    "FineTuneJob.spec.data.split.test": "a share",
    "FineTuneJob.spec.training.epochs": "half an epoch is common",
    "FineTuneJob.spec.training.learningRate": "from 1e-6 to 1",
    "FineTuneJob.spec.evaluation.gates[].maxRatio": "a ratio of perplexities",
    "ModelVersion.spec.metrics.*": "measured values of any size",
    "Rollout.spec.analysis.alpha": "a probability",
    "Rollout.spec.analysis.metrics[].max": "a limit in base units of whatever is measured",
    "Rollout.spec.analysis.metrics[].min": "a limit in base units of whatever is measured",
    "Rollout.spec.analysis.metrics[].maxIncrease": "a difference of rates",
}
"""Floats do not survive every round trip; each one in a spec has a reason."""


def root(kind: Kind) -> Schema:
    schema: Schema = build_crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(node: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if isinstance(node.get("items"), Mapping):
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), Mapping):
        yield from nodes(node["additionalProperties"], f"{path}.*")


def part(*names: str) -> dict[str, Schema]:
    """All nodes of the spec, the status or both, of all kinds, by path."""
    return {
        path: node
        for kind in KINDS
        for name in names
        for path, node in nodes(root(kind)["properties"][name], f"{kind.model.__name__}.{name}")
    }


def offenders(found: Mapping[str, Schema], wrong: Callable[[Schema], bool]) -> list[str]:
    return [path for path, node in found.items() if wrong(node)]


def test_every_field_is_described() -> None:
    named = {path: node for path, node in part("spec", "status").items() if not path.endswith(("[]", ".*"))}
    assert offenders(named, lambda node: not node.get("description")) == []


def test_descriptions_are_sentences() -> None:
    described = {path: node for path, node in part("spec", "status").items() if "description" in node}
    assert offenders(described, lambda node: not node["description"].endswith((".", "?"))) == []


def test_every_string_of_a_spec_has_a_bound() -> None:
    """The cost of a rule is estimated from the bounds, and etcd's limit is nobody's error message."""
    assert (
        offenders(part("spec"), lambda node: node["type"] == "string" and not {"maxLength", "enum"} & node.keys()) == []
    )


def test_every_list_and_map_of_a_spec_has_a_bound() -> None:
    def unbounded(node: Schema) -> bool:
        if node["type"] == "array":
            return "maxItems" not in node
        return "additionalProperties" in node and "maxProperties" not in node

    assert offenders(part("spec"), unbounded) == []


def test_every_list_says_how_it_merges() -> None:
    lists = {path: node for path, node in part("spec", "status").items() if node["type"] == "array"}
    assert offenders(lists, lambda node: "x-kubernetes-list-type" not in node) == []


def test_keys_of_a_list_are_required_or_have_a_default() -> None:
    """The API server refuses the CRD otherwise."""

    def loose(node: Schema) -> bool:
        item = node["items"]
        keys = node.get("x-kubernetes-list-map-keys", ())
        return any(key not in item.get("required", ()) and "default" not in item["properties"][key] for key in keys)

    assert offenders({p: n for p, n in part("spec", "status").items() if n["type"] == "array"}, loose) == []


def test_floats_of_a_spec_are_those_with_a_reason() -> None:
    assert set(offenders(part("spec"), lambda node: node["type"] == "number")) == FLOATS.keys()


def test_integers_are_64_bits() -> None:
    integers = {path: node for path, node in part("spec", "status").items() if node["type"] == "integer"}
    assert offenders(integers, lambda node: node.get("format") != "int64") == []


def test_the_longest_name_to_register_leaves_room_for_the_versions_number() -> None:
    spec = part("spec")
    longest = "m" * spec["FineTuneJob.spec.output.register.model"]["maxLength"]
    assert len(f"{longest}-v9999999") <= spec["Rollout.spec.tracks.production.version"]["maxLength"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_the_messages_of_the_rules_differ(kind: Kind) -> None:
    rules = [rule for _, node in nodes(root(kind), "") for rule in node.get("x-kubernetes-validations", ())]
    messages = [rule["message"] for rule in rules]
    assert len(set(messages)) == len(messages)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.plural)
def test_printer_columns_point_at_fields(kind: Kind) -> None:
    """A misspelt path shows as an empty column and nothing else."""
    known = {path.removeprefix(kind.model.__name__) for path in part("spec", "status")}
    plain = {c.json_path.split("[?")[0] for c in kind.columns} - {".metadata.creationTimestamp"}
    assert plain - known == set()


def test_a_field_of_two_types_has_no_structural_schema() -> None:
    class Model(ApiModel):
        """Two types."""

        field: int | str

    with pytest.raises(TypeError, match="more than one type"):
        structural_schema(Model)


def test_a_type_that_is_not_known_has_no_structural_schema() -> None:
    class Model(BaseModel):
        """Anything at all."""

        field: object

    with pytest.raises(TypeError, match=r"Model.field: .* has no structural schema"):
        structural_schema(Model)
