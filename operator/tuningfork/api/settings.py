"""The operator's settings: what an administrator decides once, through the chart's values.

The chart writes them as one YAML file; a wrong value stops the operator at start with a sentence that names it.
"""

from typing import Annotated, Any

from pydantic import Field

from tuningfork.api._base import ApiModel


class Images(ApiModel):
    """Images of the pods that the operator creates."""

    trainer: str
    """Image of the pods that prepare data, train and evaluate."""
    serving: str
    """Image of the adapter loader, the router and the development engine."""
    pull_policy: str = "IfNotPresent"
    """Pull policy of both."""


class S3Settings(ApiModel):
    """The object store. Credentials of the operator itself come from its environment."""

    endpoint: str | None = None
    """URL; absent means AWS."""
    region: str = "us-east-1"
    """Region that requests are signed for."""
    secret_name: str = "tuningfork-s3"  # noqa: S105 - the name of a Secret
    """Secret in each namespace of jobs and rollouts with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, for their own pods."""


class PrometheusSettings(ApiModel):
    """Where analyses look."""

    url: str | None = None
    """Absent: analyses report a provider error that says so."""
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5
    """How long a query may take."""


class PodFragment(ApiModel):
    """Added to every pod that the operator creates. The development cluster mounts its environment this way."""

    volumes: list[dict[str, Any]] = []
    """Volumes of the pod."""
    volume_mounts: list[dict[str, Any]] = []
    """Mounts of every container."""
    env: list[dict[str, Any]] = []
    """Environment of every container; wins over the operator's own variables."""
    node_selector: dict[str, str] = {}
    """Labels that a node must have."""
    tolerations: list[dict[str, Any]] = []
    """Taints that are tolerated."""


class Settings(ApiModel):
    """The operator's configuration file."""

    images: Images
    """Images of the pods that the operator creates."""
    s3: S3Settings = S3Settings()
    """The object store."""
    prometheus: PrometheusSettings = PrometheusSettings()
    """Where analyses look."""
    pods: PodFragment = PodFragment()
    """Added to every pod that the operator creates."""
    namespaces: list[str] = []
    """Namespaces whose jobs, versions and rollouts are looked after; empty means all."""
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
    """The Lease that makes one replica the leader."""
