"""A fine-tuning of the tiny model, and how a test follows it on the cluster."""

import json
from typing import Any

from demo.environment import Environment, Manifest, wait_until
from support.tiny_model import make_rows

BUCKET = "e2e"
JOBS = "finetunejobs.tuningfork.dev"
VERSIONS = "modelversions.tuningfork.dev"
ROLLOUTS = "rollouts.tuningfork.dev"


def rows(count: int, shift: int = 0) -> list[Manifest]:
    """Rows that the tiny model can learn; ``shift`` gives them each other's answers."""
    plain = make_rows(count)
    return [row | {"output": plain[(n + shift) % count]["output"]} for n, row in enumerate(plain)]


def jsonl(data: list[Manifest]) -> bytes:
    """One row a line."""
    return "".join(json.dumps(row) + "\n" for row in data).encode()


def make_job(namespace: str, name: str, base: str, uri: str, **changes: Any) -> Manifest:
    """A job that takes seconds; ``changes`` replace parts of its spec."""
    spec: Manifest = {
        "model": {"uri": base},
        "method": {"type": "LoRA", "lora": {"rank": 8, "alpha": 16}},
        "data": {"sources": [{"name": "rows", "uri": uri}]},
        "training": {"maxSteps": 30, "effectiveBatchSize": 8, "maxSequenceLength": 128, "learningRate": 0.01},
        "evaluation": {"gates": [{"metric": "perplexity", "maxRatio": 0.9}]},
        "compute": {"accelerators": ["cpu"]},
        "checkpoints": {"everySteps": 10},
        "output": {"uri": f"s3://{BUCKET}/runs", "register": {"model": "colours"}},
    }
    return {
        "apiVersion": "tuningfork.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec | changes,
    }


def follow(env: Environment, namespace: str, name: str, within: float = 240) -> tuple[Manifest, list[Manifest]]:
    """The job at its end, and every status that was seen on the way."""
    seen: list[Manifest] = []

    def look() -> Manifest | None:
        job = env.get(JOBS, name, namespace) or {}
        status = job.get("status", {})
        if status and (not seen or status != seen[-1]):
            seen.append(status)
        fresh = status.get("observedGeneration") == job.get("metadata", {}).get("generation")
        return job if fresh and status.get("phase") in ("Succeeded", "Rejected", "Failed") else None

    try:
        return wait_until(look, within=within, what=f"job {name}"), seen
    except TimeoutError as error:
        last = json.dumps(seen[-1] if seen else {}, indent=1)
        raise AssertionError(f"{error}; its last status: {last}") from error


def condition(obj: Manifest, type_: str) -> Manifest:
    """The condition of that type, or an empty one."""
    return next((c for c in obj.get("status", {}).get("conditions", []) if c["type"] == type_), {})
