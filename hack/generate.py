#!/usr/bin/env python3
"""Rewrites what is derived from code: CRDs, the reference, the schema of the chart's values, the dashboard.

With --check nothing is written: stale files are named, and the exit status is 1.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tuningfork.api.crds import KINDS, build_crd
from tuningfork.api.reference import build_reference

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "hack"))

from chart_values import values_schema  # noqa: E402 - beside this file, not installed
from dashboard import build_dashboard  # noqa: E402 - beside this file, not installed

HEADER = "# Generated from operator/tuningfork/api by `make generate`; edit the models instead.\n"


def generated() -> Iterator[tuple[str, str]]:
    """Each generated file, relative to the checkout, with its content."""
    for kind in KINDS:
        text = HEADER + yaml.safe_dump(build_crd(kind), sort_keys=False, width=120)
        # The same files for people and for the chart; a link would not survive packaging.
        for folder in ("crds", "charts/tuningfork/crds"):
            yield f"{folder}/{kind.plural}.yaml", text
    yield "charts/tuningfork/values.schema.json", _json(values_schema())
    yield "charts/tuningfork/files/dashboard.json", _json(build_dashboard())
    yield "docs/reference.md", build_reference()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def check() -> None:
    """Ends with an error that names every stale file."""
    stale = [name for name, text in generated() if not (ROOT / name).exists() or (ROOT / name).read_text() != text]
    if stale:
        sys.exit(f"stale: {', '.join(stale)}; run `make generate` and commit the result")


def write() -> None:
    """Writes every generated file."""
    for name, text in generated():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    check() if "--check" in sys.argv[1:] else write()
