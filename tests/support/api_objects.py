"""The smallest valid object of each kind, and how a test changes it: a case shows only what matters to it."""

import copy
from typing import Any

Manifest = dict[str, Any]

REMOVED = object()
"""As a value: the field is taken away."""


def make_job(name: str = "job", **changes: Any) -> Manifest:
    """A FineTuneJob; ``changes`` are fields of its spec with __ for the dot, such as ``data__split={...}``."""
    spec = {
        "model": {"uri": "s3://models/base"},
        "data": {"sources": [{"name": "support", "uri": "s3://data/support.jsonl"}]},
        "output": {"uri": "s3://models/runs"},
    }
    return _object("FineTuneJob", name, spec, changes)


def make_version(name: str = "support-v1", **changes: Any) -> Manifest:
    """A ModelVersion."""
    spec = {
        "model": "support",
        "artifact": {"uri": "s3://models/runs/1", "digest": "sha256:" + "a" * 64},
        "base": {"uri": "s3://models/base"},
    }
    return _object("ModelVersion", name, spec, changes)


def make_rollout(name: str = "support", **changes: Any) -> Manifest:
    """A Rollout."""
    spec = {
        "model": "support",
        "serving": {"base": {"uri": "s3://models/base"}},
        "tracks": {"production": {"version": "support-v1"}},
    }
    return _object("Rollout", name, spec, changes)


def changed(manifest: Manifest, **changes: Any) -> Manifest:
    """A copy with fields of its spec changed."""
    copied = copy.deepcopy(manifest)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = copied["spec"]
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is REMOVED:
            del place[last]
        else:
            place[last] = value
    return copied


def _object(kind: str, name: str, spec: Manifest, changes: Manifest) -> Manifest:
    manifest = {"apiVersion": "tuningfork.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return changed(manifest, **changes)
