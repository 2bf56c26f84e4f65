"""The chart as helm renders it, for the lint and for the tests; helm and promtool are the development cluster's own builds."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from devcluster import gobuild, tools

Manifest = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "tuningfork"
NAMESPACE = "tuningfork-system"

EVERYTHING: Mapping[str, Any] = {
    "settings": {
        "s3": {"endpoint": "http://s3.storage:9000"},
        "prometheus": {"url": "http://prometheus.monitoring:9090"},
        "pods": {"nodeSelector": {"pool": "gpu"}, "env": [{"name": "A", "value": "b"}]},
        "trainerResources": {"requests": {"cpu": "2"}},
        "engineArgs": ["--max-loras=4"],
    },
    "operator": {
        "imagePullSecrets": ["registry"],
        "serviceAccountAnnotations": {"example.com/role": "tuningfork"},
        "pod": {
            "volumes": [{"name": "more", "emptyDir": {}}],
            "volumeMounts": [{"name": "more", "mountPath": "/more"}],
            "env": [{"name": "MORE", "value": "yes"}],
            "nodeSelector": {"pool": "system"},
            "tolerations": [{"key": "system", "operator": "Exists"}],
        },
    },
    "credentials": {"accessKeyId": "id", "secretAccessKey": "secret"},
    "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    "argocd": {"enabled": True},
}
"""Values that reach every branch of every template."""


class ChartError(Exception):
    """What helm or promtool said."""


def helm(*arguments: str, stdin: str | None = None) -> str:
    return _run(gobuild.binary(tools.HELM), arguments, stdin)


def promtool(*arguments: str) -> str:
    return _run(gobuild.binary(tools.PROMTOOL), arguments, None)


def _run(program: Path, arguments: tuple[str, ...], stdin: str | None) -> str:
    done = subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChartError((done.stderr + done.stdout).strip())
    return done.stdout


def render(values: Mapping[str, Any] | None = None, *, crds: bool = False) -> list[Manifest]:
    """The chart's objects under some values over the defaults."""
    arguments = ["template", "tuningfork", str(CHART), "--namespace", NAMESPACE, "--values", "-"]
    text = helm(*arguments, *(["--include-crds"] if crds else []), stdin=json.dumps(values or {}))
    return [document for document in yaml.safe_load_all(text) if document]
