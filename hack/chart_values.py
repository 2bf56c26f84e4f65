"""The chart's values as a model: `values.schema.json` is generated from it, so that helm refuses what the operator would.

`settings` is the operator's own settings model less what the release knows better, which is why a new setting needs no change
here; a test fails until values.yaml has it. values.yaml itself is written by hand, because its comments are for reading.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from tuningfork.api._base import ApiModel
from tuningfork.api.settings import PodFragment, Settings

FROM_RELEASE = frozenset({"namespace"})
"""Settings that are no values: the chart knows them."""

PullPolicy = Literal["Always", "IfNotPresent", "Never"]

ChartSettings = create_model(
    "ChartSettings",
    __base__=ApiModel,
    __doc__="The operator's settings file.",
    **{name: (info.annotation, info) for name, info in Settings.model_fields.items() if name not in FROM_RELEASE},  # type: ignore[call-overload]
)


class Operator(ApiModel):
    """The operator's Deployment."""

    image: Annotated[str, Field(min_length=1)]
    pull_policy: PullPolicy
    image_pull_secrets: list[str]
    replicas: Annotated[int, Field(ge=1, le=10)]
    resources: dict[str, Any]
    service_account_annotations: dict[str, str]
    pod: PodFragment


class Credentials(ApiModel):
    """The operator's own access to the object store."""

    secret_name: Annotated[str, Field(min_length=1)]
    access_key_id: str
    secret_access_key: str


class Toggle(ApiModel):
    """A part of the chart that can be left out."""

    enabled: bool


class LabelledToggle(Toggle):
    """A part that somebody else finds by its labels."""

    labels: dict[str, str]


class Values(ApiModel):
    """Values of charts/tuningfork."""

    settings: ChartSettings
    operator: Operator
    credentials: Credentials
    user_roles: Toggle
    dashboard: LabelledToggle
    prometheus_rule: LabelledToggle
    argocd: Toggle
    global_: Annotated[dict[str, Any], Field(alias="global")] = {}
    """Helm's own, present where the chart is a dependency of another."""


def values_schema() -> dict[str, Any]:
    """values.schema.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Values.model_json_schema(by_alias=True)}
