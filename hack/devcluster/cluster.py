"""What every provider hands over, and what a provider is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from devcluster import settings
from devcluster.kube import Kubectl


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    `address` is an address of this machine that pods reach, so S3 and Prometheus listen there. `host_root` is where the
    node sees this machine's root folder; None where it does not, and thin images are impossible.
    """

    provider: str
    kubectl: Kubectl
    address: str
    host_root: str | None

    @property
    def s3_endpoint(self) -> str:
        return f"http://{self.address}:{settings.S3_PORT}"

    @property
    def prometheus_url(self) -> str:
        return f"http://{self.address}:{settings.PROMETHEUS_PORT}"


@dataclass(frozen=True)
class Check:
    """One line of `hack/cluster status`."""

    name: str
    healthy: bool
    detail: str = ""


class Provider(Protocol):
    """One way to have a cluster."""

    name: str
    state: Path
    """Records and logs of the processes that run on this machine for it."""

    def exists(self) -> bool:
        """Whether there is something of it on this machine, healthy or not."""

    def up(self) -> Cluster:
        """Attach to a healthy cluster, or start one."""

    def find(self) -> Cluster:
        """The cluster that runs, without changing anything; ClusterError when none does."""

    def down(self) -> None:
        """Remove all that `up` made."""

    def checks(self) -> list[Check]:
        """What is well and what is not."""

    def load_image(self, archive: Path) -> None:
        """Make the images of a docker archive known to the node."""
