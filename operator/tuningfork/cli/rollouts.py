"""`tuningfork status|tree|watch|promote|abort|retry`: what a person does to a job, a version or a rollout.

The exit status of `status` and `watch` is 0 only when the object is Healthy (Succeeded, verified); a script needs nothing else. Commands
become annotations on the object that name what the person saw (candidate and step), and the operator does the rest.
"""

import asyncio
import json
import sys
import time
import uuid
from typing import Final

import click

from tuningfork.api._meta import ANNOTATION_COMMANDS, LABEL_JOB, LABEL_ROLLOUT
from tuningfork.cli.objects import Health, Target, about, health, read, run
from tuningfork.cli.tree import details, headline, job_tree, rollout_tree, version_tree
from tuningfork.planning.plan import Manifest
from tuningfork.providers.kubernetes import Kubernetes, Resource

POD: Final = Resource("v1", "Pod", "pods")
DEPLOYMENT: Final = Resource("apps/v1", "Deployment", "deployments")

POLL_SECONDS: Final = 1.0
"""Between two looks of `watch`."""


@click.command()
@about
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(target: tuple[Resource, str], namespace: str, output: str) -> None:
    """Says how the object is; exit status 0 only when it is well, 1 when it is not, 3 while it is under way."""
    obj = run(lambda kube: read(kube, Target(target[0], namespace, target[1])))
    if output == "json":
        click.echo(json.dumps(obj.get("status") or {}, indent=2))
    else:
        click.echo("\n".join([headline(obj), *details(obj)]))
    sys.exit(health(obj))


@click.command()
@about
def tree(target: tuple[Resource, str], namespace: str) -> None:
    """Shows the object and everything that belongs to it."""
    click.echo("\n".join(run(lambda kube: _tree(kube, Target(target[0], namespace, target[1])))))


async def _tree(kube: Kubernetes, target: Target) -> list[str]:
    obj = await read(kube, target)
    match target.resource.kind:
        case "Rollout":
            label = f"{LABEL_ROLLOUT}={target.name}"
            deployments = (await kube.list(DEPLOYMENT, label, target.namespace)).items
            return rollout_tree(obj, deployments, (await kube.list(POD, label, target.namespace)).items)
        case "FineTuneJob":
            return job_tree(obj, (await kube.list(POD, f"{LABEL_JOB}={target.name}", target.namespace)).items)
        case _:
            return version_tree(obj)


@click.command()
@about
@click.option("--timeout", type=float, default=3600, show_default=True, help="Seconds to wait at most.")
def watch(target: tuple[Resource, str], namespace: str, timeout: float) -> None:
    """Prints every change until the object is well (exit status 0) or needs somebody (1); 3 when the time is over."""
    sys.exit(run(lambda kube: _watch(kube, Target(target[0], namespace, target[1]), timeout)))


async def _watch(kube: Kubernetes, target: Target, timeout: float) -> Health:
    end, last = time.monotonic() + timeout, ""
    while True:
        obj = await read(kube, target)
        line = headline(obj)
        if line != last:
            click.echo(line)
            last = line
        found = health(obj)
        if found is not Health.UNDER_WAY or time.monotonic() >= end:
            return found
        await asyncio.sleep(POLL_SECONDS)


@click.command()
@about
@click.option("--full", is_flag=True, help="Skip the remaining steps.")
def promote(target: tuple[Resource, str], namespace: str, full: bool) -> None:
    """Lets the candidate go on to its next step now. It never overrides a failed analysis."""
    _send("promote-full" if full else "promote", Target(target[0], namespace, target[1]))


@click.command()
@about
@click.option("--version", help="The version; the candidate when absent.")
def abort(target: tuple[Resource, str], namespace: str, version: str | None) -> None:
    """Takes all traffic from the candidate (or a pinned version) at once."""
    _send("abort", Target(target[0], namespace, target[1]), version)


@click.command()
@about
@click.option("--version", help="The version; the one that failed last when absent.")
def retry(target: tuple[Resource, str], namespace: str, version: str | None) -> None:
    """Tries a failed version again, or the verification of a ModelVersion."""
    _send("retry", Target(target[0], namespace, target[1]), version)


def _send(verb: str, target: Target, version: str | None = None) -> None:
    async def send(kube: Kubernetes) -> str:
        value = command_value(verb, await read(kube, target), version)
        patch = {"metadata": {"annotations": {ANNOTATION_COMMANDS[verb]: value}}}
        await kube.patch(*target, patch)
        return value

    value = run(send)
    click.echo(f"{target}: {verb} {value.rpartition('/')[0] or target.name}")


def command_value(verb: str, obj: Manifest, version: str | None = None) -> str:
    """``<candidate>/<step>/<nonce>`` of what the object shows now; a sentence where there is nothing to act on."""
    nonce, kind = uuid.uuid4().hex[:8], obj["kind"]
    if kind == "ModelVersion" and verb == "retry":
        return f"{obj['metadata']['name']}/0/{nonce}"
    if kind != "Rollout":
        raise click.UsageError(f"{verb} is for Rollouts (tro/NAME); {kind} has no such command")
    status = obj.get("status") or {}
    candidate = status.get("candidate") or {}
    if verb == "retry":
        failed = [f["version"] for f in status.get("failed", ())]
        version = version or (failed[-1] if failed else None)
        if version not in failed:
            raise click.ClickException(
                f"nothing to retry: {version or 'no version'} is not among the failed ({failed or 'none'})"
            )
        return f"{version}/0/{nonce}"
    version = version or candidate.get("version")
    if version is None:
        raise click.ClickException(f"no candidate to {verb}: {status.get('message') or 'not seen by the operator yet'}")
    return f"{version}/{candidate.get('step', 0)}/{nonce}"
