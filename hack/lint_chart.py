#!/usr/bin/env python3
"""Checks the chart: helm lint, every rendered object against Kubernetes' schemas, alerts and dashboard queries with promtool.

Rendered twice, with the defaults and with everything switched on, because a template that is never rendered is never checked.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import yaml

from chart import CHART, EVERYTHING, ChartError, Manifest, helm, promtool, render
from dashboard import DASHBOARD, panel_queries

KUBERNETES = "1.34"
VARIANTS = {"default values": {}, "everything on": EVERYTHING}


def problems() -> Iterator[str]:
    """One line for each thing that is wrong: which file or object, and why."""
    try:
        helm("lint", "--strict", "--quiet", str(CHART))
        variants = {name: render(values, crds=True) for name, values in VARIANTS.items()}
    except ChartError as error:
        yield f"charts/tuningfork: {error}"
        return
    for name, objects in variants.items():
        for manifest in objects:
            yield from (f"charts/tuningfork ({name}): {problem}" for problem in schema_problems(manifest))
    yield from promtool_problems("charts/tuningfork/files/alerts.yaml", (CHART / "files" / "alerts.yaml").read_text())
    dashboard = json.loads(DASHBOARD.read_text())
    yield from promtool_problems("charts/tuningfork/files/dashboard.json", as_rules(panel_queries(dashboard)))


def schema_problems(manifest: Manifest) -> Iterator[str]:
    """Against the schema of a built-in kind, unknown fields included; other kinds have none here."""
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        path = ".".join(str(part) for part in error.path) or "the object"
        yield f"{name}: {path}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        if manifest["apiVersion"].split("/")[0] != "monitoring.coreos.com":
            yield f"{name}: {error}"


def as_rules(queries: list[tuple[str, str]]) -> str:
    """Queries as recording rules, which is the form in which promtool checks PromQL without a server."""
    rules = [
        {"record": f"query:{number}", "expr": expression, "labels": {"panel": panel}}
        for number, (panel, expression) in enumerate(queries)
    ]
    return yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]})


def promtool_problems(source: str, rules: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.yaml"
        path.write_text(rules)
        try:
            promtool("check", "rules", str(path))
        except ChartError as error:
            yield f"{source}: {error}"


if __name__ == "__main__":
    found = list(problems())
    for line in found:
        print(line, file=sys.stderr)
    sys.exit(1 if found else 0)
