"""values.yaml, its schema and the operator's settings agree."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from chart import CHART, EVERYTHING, NAMESPACE, ChartError, Manifest, render
from chart_values import FROM_RELEASE, Values
from tuningfork.api import Settings

VALUES: Manifest = yaml.safe_load((CHART / "values.yaml").read_text())


def missing(model: type[BaseModel], values: Mapping[str, Any], path: str) -> Iterator[str]:
    """Fields of a model that have no value."""
    for name, info in model.model_fields.items():
        key = info.alias or name
        if key not in values:
            yield f"{path}.{key}"
        elif isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from missing(info.annotation, values[key], f"{path}.{key}")


def settings_of(objects: list[Manifest]) -> Settings:
    """What the operator reads."""
    text = find(objects, "ConfigMap", "tuningfork-settings")["data"]["settings.yaml"]
    return Settings.model_validate(yaml.safe_load(text))


def find(objects: list[Manifest], kind: str, name: str) -> Manifest:
    return next(o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))


def test_every_value_is_in_values_yaml() -> None:
    """So that its comment is, too. A new setting fails here until it has one."""
    assert set(missing(Values, VALUES, "values")) == {"values.global"}


def test_settings_that_the_release_knows_are_no_values() -> None:
    assert FROM_RELEASE & VALUES["settings"].keys() == set()
    assert Settings.model_fields.keys() >= FROM_RELEASE


def test_the_defaults_are_the_settings_own_defaults() -> None:
    images = Settings.model_validate({"images": VALUES["settings"]["images"]}).images
    assert settings_of(render()) == Settings(images=images, namespace=NAMESPACE)


def test_what_is_set_reaches_the_settings_file() -> None:
    chosen = {**VALUES["settings"]}
    for key, value in EVERYTHING["settings"].items():
        chosen[key] = {**chosen[key], **value} if isinstance(value, dict) else value
    expected = Settings.model_validate({**chosen, "namespace": NAMESPACE})
    assert settings_of(render(EVERYTHING)) == expected
    assert expected.s3.endpoint == "http://s3.storage:9000"


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        pytest.param({"setings": {}}, "setings", id="a misspelt value"),
        pytest.param({"settings": {"worker": 3}}, "worker", id="a misspelt setting"),
        pytest.param({"settings": {"namespace": "x"}}, "namespace", id="a setting that the release knows"),
        pytest.param({"settings": {"workers": 0}}, "/settings/workers", id="a setting out of bounds"),
        pytest.param({"operator": {"replicas": "two"}}, "/operator/replicas", id="a word for a number"),
        pytest.param(
            {"operator": {"pullPolicy": "Sometimes"}}, "/operator/pullPolicy", id="a policy that does not exist"
        ),
        pytest.param(
            {"credentials": {"accessKeyId": "id"}},
            "set both accessKeyId and secretAccessKey",
            id="half of a credential",
        ),
    ],
)
def test_helm_refuses_and_names(values: Manifest, complaint: str) -> None:
    with pytest.raises(ChartError) as refusal:
        render(values)
    assert complaint in str(refusal.value)


def test_the_chart_may_be_a_dependency_of_another() -> None:
    assert render({"global": {"team": "ml"}}) == render()
