"""The development cluster for tests that speak to the API server themselves: its URL, TLS and credentials, without kubectl."""

import base64
import json
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from support.api_server import ROOT


@dataclass(frozen=True)
class Cluster:
    """What `hack/cluster up` wrote."""

    kubeconfig: Path
    info: dict[str, Any]
    server: str
    _cluster: dict[str, str]
    _user: dict[str, str]

    def tls(self) -> ssl.SSLContext:
        authority = base64.b64decode(self._cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        if "client-certificate-data" in self._user:
            with tempfile.NamedTemporaryFile() as file:  # ssl reads certificates from files only
                for key in ("client-certificate-data", "client-key-data"):
                    file.write(base64.b64decode(self._user[key]))
                file.flush()
                context.load_cert_chain(file.name)
        return context

    def headers(self) -> dict[str, str]:
        token = self._user.get("token")
        return {"Authorization": f"Bearer {token}"} if token else {}


def read_cluster() -> Cluster:
    """The development cluster, which must be up."""
    path = ROOT / ".cluster" / "info.json"
    assert path.exists(), "these tests need the development cluster: run `make cluster`"
    info = json.loads(path.read_text())
    kubeconfig = Path(info["kubeconfig"])
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    return Cluster(kubeconfig, info, cluster["server"], cluster, user)
