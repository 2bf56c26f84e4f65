#!/usr/bin/env python3
"""Rewrites what is derived from the API models: CRDs and the reference docs."""

from pathlib import Path

import yaml

from tuningfork.api.crds import KINDS, build_crd

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Generated from operator/tuningfork/api by `make generate`; edit the models instead.\n"


def write_crds() -> None:
    """The same files for people (crds/) and for the chart."""
    for folder in (ROOT / "crds", ROOT / "charts" / "tuningfork" / "crds"):
        folder.mkdir(parents=True, exist_ok=True)
        for kind in KINDS:
            text = HEADER + yaml.safe_dump(build_crd(kind), sort_keys=False, width=120)
            (folder / f"{kind.plural}.yaml").write_text(text)


if __name__ == "__main__":
    write_crds()
