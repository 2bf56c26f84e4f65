"""The kind provider from `up` to `down`, against stand-ins for `kind` and `docker` that record how they were called.

Everything else that would run is a stand-in, too (kubectl, helm, the S3 server, Prometheus), put where the cache would
have them; the processes that `up` leaves running are real and answer on a loopback address of this test's own.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import byo, cli, providers, tools
from devcluster.daemons import Daemons
from devcluster.kind import KindProvider
from devcluster.local.provider import LocalProvider

ADDRESS = f"127.{os.getpid() % 200 + 20}.{os.getpid() // 200 % 250}.9"
"""A loopback address of its own, so that two runs of this test do not meet on a port."""

RECORDS = """#!{python}
import pathlib, sys
with open({calls!r}, "a") as calls:
    print({name!r}, *sys.argv[1:], file=calls)
"""
DOCKER = """
if sys.argv[1:3] == ["network", "inspect"]:
    print("fc00:f853:ccd:e793::1\\n{address}")
"""
KIND = """
if sys.argv[1:3] == ["create", "cluster"]:
    [path] = [word.partition("=")[2] for word in sys.argv if word.startswith("--kubeconfig=")]
    pathlib.Path(path).write_text("kind's kubeconfig")
"""
KUBECTL = """
import base64, json
words = [word for word in sys.argv[1:] if not word.startswith("--kubeconfig")]
encoded = base64.b64encode(b"x").decode()
if words[0] == "apply":
    sys.stdin.read()
elif words[:2] == ["config", "view"]:
    print(json.dumps({{"clusters": [{{"cluster": {{"server": "https://127.0.0.1:40000"}}}}]}}))
elif words[:2] == ["get", "secret"]:
    print(json.dumps({{"data": {{"token": encoded, "ca.crt": encoded}}}}))
elif words[:2] == ["get", "nodes"]:
    print("tuningfork-control-plane   Ready   control-plane   1m   v1.34.0")
"""
ANSWERS_200 = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
[listen] = [word.partition("=")[2] for word in sys.argv if word.startswith(("--port=", "--web.listen-address="))]
host, _, port = listen.rpartition(":")
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""


class Machine:
    """A machine with Docker, whose programs are stand-ins."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.checkout = root / "checkout"
        self.checkout.mkdir()
        self.add(self.bin / "docker", DOCKER)
        self.add(self.bin / "kind", KIND)
        cached = (
            (tools.KUBECTL, KUBECTL),
            (tools.HELM, ""),
            (tools.VERSITYGW, ANSWERS_200),
            (tools.PROMETHEUS, ANSWERS_200),
        )
        for tool, behaviour in cached:
            self.add(root / "cache/tuningfork/bin" / f"{tool.name}-{tool.version}" / tool.binaries[0], behaviour)

    def add(self, path: Path, behaviour: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = RECORDS + behaviour
        path.write_text(
            text.format(python=sys.executable, calls=str(self.root / "calls"), name=path.name, address=ADDRESS)
        )
        path.chmod(0o755)

    def calls(self, *names: str) -> list[str]:
        lines = (self.root / "calls").read_text().replace(str(self.root), "ROOT").splitlines()
        (self.root / "calls").unlink()
        return [line for line in lines if line.split()[0] in names]

    def info(self) -> dict[str, object]:
        content: dict[str, object] = json.loads((self.checkout / ".cluster/info.json").read_text())
        return content


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    monkeypatch.setenv("PATH", str(machine.bin), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv(byo.VARIABLE, raising=False)
    monkeypatch.setattr(LocalProvider, "state", tmp_path / "no-local-cluster")
    monkeypatch.setattr(cli, "CHECKOUT", machine.checkout)
    yield machine
    for state in (p for p in (tmp_path / "state/tuningfork").glob("*") if p.is_dir()):
        daemons = Daemons(state)
        daemons.stop(daemons.names())


STATE = "ROOT/state/tuningfork/kind"


def test_up_creates_the_cluster_loads_the_thin_image_and_starts_what_runs_beside_it(machine: Machine) -> None:
    assert cli.main(["up"]) == 0
    assert machine.calls("kind", "versitygw") == [
        f"kind delete cluster --kubeconfig={STATE}/kubeconfig --name=tuningfork",
        f"kind create cluster --config={STATE}/kind.json --kubeconfig={STATE}/kubeconfig --wait=180s --name=tuningfork",
        f"kind load image-archive {STATE}/thin.tar --name=tuningfork",
        f"versitygw --port={ADDRESS}:16070 --region=us-east-1 --health=/health --quiet posix {STATE}/s3",
    ]
    [node] = json.loads((machine.root / "state/tuningfork/kind/kind.json").read_text())["nodes"]
    assert node["extraMounts"] == [{"hostPath": "/", "containerPath": "/host", "readOnly": True}]


def test_the_checkout_gets_a_kubeconfig_and_addresses_that_pods_reach(machine: Machine) -> None:
    assert cli.main(["up"]) == 0
    assert (machine.checkout / ".cluster/kubeconfig").read_text() == "kind's kubeconfig"
    info = machine.info()
    assert info["provider"] == "kind"
    assert info["nodeAddress"] == ADDRESS
    assert info["prometheus"] == {"url": f"http://{ADDRESS}:16090"}
    thin = info["thin"]
    assert isinstance(thin, dict)
    assert {"name": "thin-0", "hostPath": {"path": "/host/usr"}} in thin["volumes"]
    prometheus = json.loads((machine.root / "state/tuningfork/kind/prometheus/prometheus.yml").read_text())
    assert prometheus["scrape_configs"][0]["scheme"] == "https", "through the API server's pod proxy"


def test_a_second_up_changes_nothing(machine: Machine) -> None:
    cli.main(["up"])
    machine.calls()
    assert cli.main(["up"]) == 0
    assert machine.calls("kind", "versitygw", "prometheus") == []


def test_status_is_healthy_and_says_what_it_checked(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["up"])
    capsys.readouterr()
    assert cli.main(["status"]) == 0
    shown = capsys.readouterr().out
    for line in ("ok   API server is ready", "ok   nodes are Ready", "ok   s3 answers", "ok   prometheus answers"):
        assert line in shown


def test_a_dead_s3_server_is_seen_by_status_and_brought_back_by_up(machine: Machine) -> None:
    cli.main(["up"])
    daemons = Daemons(KindProvider().state)
    daemons.stop(["s3"])
    assert cli.main(["status"]) == 1
    assert cli.main(["up"]) == 0
    assert cli.main(["status"]) == 0


def test_an_image_is_loaded_from_its_archive(machine: Machine) -> None:
    cli.main(["up"])
    machine.calls()
    archive = machine.root / "operator.tar"
    archive.touch()
    assert cli.main(["load-image", str(archive)]) == 0
    assert machine.calls("kind") == ["kind load image-archive ROOT/operator.tar --name=tuningfork"]


def test_down_removes_the_cluster_its_processes_and_its_files(machine: Machine) -> None:
    cli.main(["up"])
    machine.calls()
    daemons = Daemons(KindProvider().state)
    assert cli.main(["down"]) == 0
    assert machine.calls("kind") == [f"kind delete cluster --kubeconfig={STATE}/kubeconfig --name=tuningfork"]
    assert daemons.names() == []
    assert not KindProvider().exists()
    assert list((machine.checkout / ".cluster").iterdir()) == []


def test_what_kind_says_when_it_fails_is_shown(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.add(machine.bin / "kind", "\nif sys.argv[1] == 'create': sys.exit('ERROR: port is already allocated')")
    assert cli.main(["up"]) == 1
    assert "ERROR: port is already allocated" in capsys.readouterr().err


def test_a_kubeconfig_that_was_asked_for_comes_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    kubeconfig = machine.root / "theirs"
    kubeconfig.write_text("their kubeconfig")
    monkeypatch.setenv(byo.VARIABLE, str(kubeconfig))
    monkeypatch.setenv(byo.ADDRESS_VARIABLE, ADDRESS)
    assert cli.main(["up"]) == 0
    assert machine.calls("kind", "docker") == []
    assert machine.info()["provider"] == "byo"
    assert machine.info()["thin"] is None, "their nodes do not see this machine's files"


def test_a_kubeconfig_that_is_not_there_is_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(byo.VARIABLE, "/no/such/kubeconfig")
    assert cli.main(["up"]) == 1
    assert "TUNINGFORK_KUBECONFIG names /no/such/kubeconfig, and there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("docker", "expected"), [pytest.param(True, "kind", id="with Docker"), pytest.param(False, "local", id="without")]
)
def test_docker_decides_where_nothing_runs_yet(machine: Machine, docker: bool, expected: str) -> None:
    assert providers.select(lambda: docker).name == expected


def test_a_local_cluster_that_runs_is_kept_although_docker_answers(machine: Machine) -> None:
    LocalProvider.state.mkdir()
    assert providers.select(lambda: True).name == "local"
