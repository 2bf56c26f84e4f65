"""The development cluster as the demo and the end-to-end tests use it: kubectl, helm, S3, Prometheus, and our chart in it."""

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config

from devcluster.settings import direct

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_NAMESPACE = "tuningfork-system"
SECRET = "tuningfork-s3"  # noqa: S105 - the name of a Secret
Manifest = dict[str, Any]


class CommandError(RuntimeError):
    """A program ended with an error; the message has its words."""


class Environment:
    """A running development cluster; `hack/cluster up` made it."""

    def __init__(self, info: dict[str, Any] | None = None) -> None:
        if info is None:
            file = ROOT / ".cluster" / "info.json"
            if not file.exists():
                raise CommandError("there is no development cluster: run `make cluster`")
            info = json.loads(file.read_text())
        self.info = info

    def kubectl(self, *args: str, stdin: str | None = None, timeout: float = 120) -> str:
        """kubectl's output; raises CommandError with what it said."""
        return self._run([self.info["kubectl"], *args], stdin, timeout)

    def helm(self, *args: str, timeout: float = 300) -> str:
        """helm's output."""
        return self._run([self.info["helm"], *args], None, timeout)

    def _run(self, command: list[str], stdin: str | None, timeout: float) -> str:
        env = os.environ | direct(os.environ) | {"KUBECONFIG": self.info["kubeconfig"]}
        done = subprocess.run(
            command, input=stdin, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            name = Path(command[0]).name
            raise CommandError(f"{name} {' '.join(command[1:5])}: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout

    def apply(self, *manifests: Manifest) -> None:
        """`kubectl apply`, as a user would, with strict validation."""
        self.kubectl("apply", "--validate=strict", "-f", "-", stdin=yaml.safe_dump_all(manifests, sort_keys=False))

    def get(self, kind: str, name: str, namespace: str) -> Manifest | None:
        """The object, or None when there is none."""
        text = self.kubectl("get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def items(self, kind: str, namespace: str, *args: str) -> list[Manifest]:
        """All objects of a kind."""
        items: list[Manifest] = json.loads(self.kubectl("get", kind, "-n", namespace, "-o", "json", *args))["items"]
        return items

    def s3(self) -> Any:
        """A boto3 client of the development S3 server."""
        s3 = self.info["s3"]
        return boto3.client(
            "s3",
            endpoint_url=s3["endpoint"],
            region_name=s3["region"],
            aws_access_key_id=s3["accessKey"],
            aws_secret_access_key=s3["secretKey"],
            config=Config(proxies={}),
        )

    def bucket(self, name: str) -> None:
        """Makes a bucket unless it exists."""
        client = self.s3()
        if name not in {b["Name"] for b in client.list_buckets()["Buckets"]}:
            client.create_bucket(Bucket=name)

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        """Uploads the files of a folder, unless an object of the same size is there."""
        client = self.s3()
        listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
        there = {item["Key"]: item["Size"] for item in listed}
        for file in sorted(folder.iterdir()):
            key = f"{prefix}/{file.name}"
            if file.is_file() and there.get(key) != file.stat().st_size:
                client.upload_file(str(file), bucket, key)

    def namespace(self, name: str) -> None:
        """A namespace with the Secret that its jobs and engines read S3 with."""
        s3 = self.info["s3"]
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": SECRET, "namespace": name},
                "stringData": {"AWS_ACCESS_KEY_ID": s3["accessKey"], "AWS_SECRET_ACCESS_KEY": s3["secretKey"]},
            },
        )

    def values(self, images: str, **settings: Any) -> Manifest:
        """Values of the chart for this cluster. ``images`` is thin (the host's environment, mounted) or real."""
        s3, thin = self.info["s3"], self.info["thin"]
        operator: Manifest = {}
        chosen: Manifest = {
            "s3": {"endpoint": s3["endpoint"], "region": s3["region"], "secretName": SECRET},
            "prometheus": {"url": self.info["prometheus"]["url"]},
        }
        if images == "thin":
            if thin is None:
                raise CommandError(
                    "thin images need nodes that see this machine's files, and the nodes of TUNINGFORK_KUBECONFIG do not: "
                    "push the images of `hack/images --no-load` to your registry and install as docs/install.md says"
                )
            fragment = {key: thin[key] for key in ("volumes", "volumeMounts", "env")}
            operator = {"image": thin["image"], "pod": fragment}
            chosen |= {"images": {"trainer": thin["image"], "serving": thin["image"]}, "pods": fragment}
        return {
            "settings": chosen | settings,
            "operator": operator,
            "credentials": {"accessKeyId": s3["accessKey"], "secretAccessKey": s3["secretKey"]},
        }

    def install(self, values: Manifest, *, release: str = "tuningfork", namespace: str = SYSTEM_NAMESPACE) -> None:
        """Installs or upgrades the chart and waits until the operator is ready."""
        chart = ROOT / "charts" / "tuningfork"
        # Helm never upgrades what is in crds/; a user does it by hand, with this very command.
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(chart / "crds"))
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(values, file)
            file.flush()
            self.helm(
                "upgrade", "--install", release, str(chart), "-n", namespace, "--create-namespace",
                "-f", file.name, "--wait", "--timeout", "180s",
            )  # fmt: skip

    @contextmanager
    def service(self, name: str, namespace: str, port: int = 80) -> Iterator[str]:
        """A URL of a Service: its cluster address where this machine reaches it, else a port-forward."""
        service = self.get("service", name, namespace)
        if service is None:
            raise CommandError(f"there is no Service {namespace}/{name}")
        address = service["spec"]["clusterIP"]
        if _connects(address, port):
            yield f"http://{address}:{port}"
            return
        local = _free_port()
        command = [self.info["kubectl"], "port-forward", "-n", namespace, f"service/{name}", f"{local}:{port}"]
        forward = subprocess.Popen(
            command,
            env=os.environ | direct(os.environ) | {"KUBECONFIG": self.info["kubeconfig"]},
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: _connects("127.0.0.1", local), within=20, what=f"port-forward to {namespace}/{name}")
            yield f"http://127.0.0.1:{local}"
        finally:
            forward.terminate()
            forward.wait(10)


def wait_until(check: Callable[[], Any], *, within: float, what: str, every: float = 0.5) -> Any:
    """The first true value of ``check``; raises TimeoutError that says what was waited for."""
    end = time.monotonic() + within
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not after {within:.0f} s")
        time.sleep(every)


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
