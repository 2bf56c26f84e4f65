"""`tuningfork estimate` as a person calls it."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from support.api_objects import make_job
from support.jobs import SMOL
from tuningfork.cli import main


@pytest.fixture
def model(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMOL))
    return f"file://{folder}"


def estimate(tmp_path: Path, manifest: object, *options: str) -> Result:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(manifest))
    return CliRunner().invoke(main, ["estimate", "-f", str(path), *options])


def test_json_has_bytes_breakdown_and_choice(tmp_path: Path, model: str) -> None:
    job = make_job("a", model__uri=model, compute__accelerators=["nvidia-l4"])
    result = estimate(tmp_path, job, "-o", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["choice"] == {"accelerator": "nvidia-l4", "count": 1, "nodes": 1}
    assert found["perGpuBytes"] == sum(found["breakdown"].values())
    assert found["microBatchSize"] * found["gradientAccumulationSteps"] == 16


def test_text_names_the_choice_and_the_parts(tmp_path: Path, model: str) -> None:
    result = estimate(tmp_path, make_job("a", model__uri=model, compute__accelerators=["nvidia-t4"]))
    assert result.output.startswith("About ")
    assert "1 x nvidia-t4" in result.output
    assert "weights" in result.output


def test_nothing_fits_is_exit_status_one_with_a_reason(tmp_path: Path, model: str) -> None:
    result = estimate(tmp_path, make_job("a", model__uri=model, compute__accelerators=["abacus"]), "-o", "json")
    assert result.exit_code == 1
    assert json.loads(result.output)["choice"] is None
    assert "abacus: not in the catalogue" in json.loads(result.output)["message"]


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        pytest.param(
            make_job("a", model__uri="file:///nowhere"), "spec.model.uri: /nowhere/config.json", id="no model"
        ),
        pytest.param({"kind": "Pod"}, "holds Pod; give a file with a FineTuneJob", id="another kind"),
        pytest.param(make_job("a", training__epochs=-1), "spec.training.epochs: ", id="a wrong field"),
        pytest.param(make_job("a", epoch=1), "spec.epoch: ", id="an unknown field"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, manifest: object, sentence: str) -> None:
    result = estimate(tmp_path, manifest)
    assert result.exit_code == 1
    assert sentence in result.output


def test_a_target_module_that_the_model_lacks_is_named(tmp_path: Path, model: str) -> None:
    job = make_job("a", model__uri=model, method={"lora": {"targetModules": ["qproj"]}})
    assert "'qproj' is no linear layer of a llama model" in estimate(tmp_path, job).output
