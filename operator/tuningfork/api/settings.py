"""The operator's settings: what an administrator decides once, through the chart's values.

The chart writes them as one YAML file; a wrong value stops the operator at start with a sentence that names it.
"""

from typing import Annotated, Any

from pydantic import Field

from tuningfork.api._base import ApiModel


class Images(ApiModel):
    """Images of the pods that the operator creates."""

    trainer: str
    serving: str
    pull_policy: str = "IfNotPresent"


class S3Settings(ApiModel):
    """The object store. Credentials of the operator itself come from its environment."""

    endpoint: str | None = None
    """URL; absent means AWS."""
    region: str = "us-east-1"
    secret_name: str = "tuningfork-s3"  # noqa: S105 - the name of a Secret
    """Secret in each namespace of jobs and rollouts with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for their own pods."""


class PrometheusSettings(ApiModel):
    """Where analyses look."""

    url: str | None = None
    """Absent: analyses report a provider error that says so."""
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5


class PodFragment(ApiModel):
    """Added to every pod that the operator creates. The development cluster mounts its environment this way."""

    volumes: list[dict[str, Any]] = []
    volume_mounts: list[dict[str, Any]] = []
    env: list[dict[str, Any]] = []
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []


class Settings(ApiModel):
    """The operator's configuration file."""

    images: Images
    s3: S3Settings = S3Settings()
    prometheus: PrometheusSettings = PrometheusSettings()
    pods: PodFragment = PodFragment()
    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """Reconciles at the same time."""
    namespace: str = "tuningfork-system"
    """Where the operator runs: Lease, certificate, intake Service."""
    service_name: str = "tuningfork"
    """The operator's Service; the intake is https://<service>.<namespace>.svc:9443/v1/progress."""
    trainer_resources: dict[str, Any] = {}
    """Resources of CPU training and prepare pods, as in a container; absent values are chosen by sizing."""
    engine_resources: dict[str, Any] = {}
    """Resources of engine containers, as in a container."""
    engine_args: list[str] = []
    """More arguments of the engine."""
    lease_name: str = "tuningfork-operator"
