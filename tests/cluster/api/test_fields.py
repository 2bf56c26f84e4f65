"""Fields as the API server takes them: unknown ones, defaults, limits."""

from typing import Any

import pytest

from devcluster.console import ClusterError
from support.api_objects import Manifest, changed, make_job, make_rollout, make_version
from support.api_server import Api
from tuningfork.api import ApiModel, FineTuneJobSpec, ModelVersionSpec, RolloutSpec

pytestmark = pytest.mark.cluster

DRY = "--dry-run=server"
KINDS = [
    pytest.param(make_job(), FineTuneJobSpec, id="FineTuneJob"),
    pytest.param(make_version(), ModelVersionSpec, id="ModelVersion"),
    pytest.param(
        make_rollout(analysis__metrics=[{"name": "p95", "template": "LatencyP95", "max": 2}]), RolloutSpec, id="Rollout"
    ),
]


@pytest.mark.parametrize(("manifest", "model"), KINDS)
def test_the_server_fills_in_the_same_defaults_as_the_models(
    api: Api, manifest: Manifest, model: type[ApiModel]
) -> None:
    assert api.create(manifest, DRY)["spec"] == model.model_validate(manifest["spec"]).dump()


@pytest.mark.parametrize(("manifest", "model"), KINDS)
def test_an_unknown_field_is_refused_by_strict_validation(api: Api, manifest: Manifest, model: type[ApiModel]) -> None:
    with pytest.raises(ClusterError, match=r'unknown field "spec.colour"'):
        api.create(changed(manifest, colour="red"), DRY, "--validate=strict")


@pytest.mark.parametrize(("manifest", "model"), KINDS)
def test_an_unknown_field_is_dropped_otherwise(api: Api, manifest: Manifest, model: type[ApiModel]) -> None:
    assert "colour" not in api.create(changed(manifest, colour="red"), DRY, "--validate=ignore")["spec"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param(
            {"objective": "DPO"}, 'spec.objective: Unsupported value: "DPO"', id="a value that is none of the list"
        ),
        pytest.param({"method__lora__rank": 0}, "spec.method.lora.rank: Invalid value: 0", id="a rank of 0"),
        pytest.param(
            {"method__lora__dropout": 1}, "spec.method.lora.dropout: Invalid value: 1", id="everything dropped"
        ),
        pytest.param({"model__uri": "hf://a/b"}, "spec.model.uri: Invalid value", id="a URI that nothing reads"),
        pytest.param({"model": {}}, "spec.model.uri: Required value", id="a model without a URI"),
        pytest.param({"training__epochs": "three"}, "spec.training.epochs", id="a word for a number"),
        pytest.param(
            {"data__sources": [{"name": "a", "uri": "s3://d/1"}, {"name": "a", "uri": "s3://d/2"}]},
            "spec.data.sources[1]: Duplicate value",
            id="two sources of one name",
        ),
        pytest.param({"data__sources": []}, "spec.data.sources", id="no data at all"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field(api: Api, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ClusterError) as refusal:
        api.create(make_job(**change), DRY)
    assert complaint in str(refusal.value)


@pytest.mark.parametrize("hold", ["90", "1d", "-5s", "1.5h"])
def test_a_length_of_time_needs_a_unit(api: Api, hold: str) -> None:
    walk = [{"track": "canary", "weight": 5, "hold": hold}]
    with pytest.raises(ClusterError, match=r"spec.strategy.steps\[0\].hold: Invalid value"):
        api.create(make_rollout(strategy__steps=walk), DRY)
