"""What the commands for a person share: which object is meant, how it is read, and whether it is well."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import click

from tuningfork.api import API_VERSION
from tuningfork.planning.plan import Manifest
from tuningfork.providers.errors import NotFoundError, ProviderError
from tuningfork.providers.kubernetes import Kubernetes, Resource, connect

T = TypeVar("T")

KINDS: Final = (
    (Resource(API_VERSION, "FineTuneJob", "finetunejobs"), ("ftj",)),
    (Resource(API_VERSION, "ModelVersion", "modelversions"), ("mv",)),
    (Resource(API_VERSION, "Rollout", "rollouts"), ("tro",)),
)
"""Each kind with its short names."""


class Health(IntEnum):
    """How an object is; the value is the exit status of the commands that say so."""

    GOOD = 0
    BAD = 1
    UNDER_WAY = 3
    """2 is a wrong command line."""


class Target(NamedTuple):
    """The object that a command is about."""

    resource: Resource
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.resource.kind} {self.namespace}/{self.name}"


class TargetType(click.ParamType[tuple[Resource, str]]):
    """``kind/name`` on the command line, with every name that kubectl knows a kind by."""

    name = "KIND/NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Resource, str]:
        kind, _, name = str(value).partition("/")
        kind = kind.lower().removesuffix(".tuningfork.dev")
        for resource, short in KINDS:
            if name and kind in (resource.plural, resource.kind.lower(), *short):
                return resource, name
        known = ", ".join(f"{short[0]}/NAME" for _, short in KINDS)
        raise click.BadParameter(f"{value!r} is not one of {known}", ctx, param)


def about(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument and the option that say which object is meant."""
    command = click.option("-n", "--namespace", default="default", show_default=True, help="Its namespace.")(command)
    return click.argument("target", type=TargetType())(command)


def run(action: Callable[[Kubernetes], Awaitable[T]]) -> T:
    """Does something with the API server; an error becomes one sentence and exit status 1."""

    async def connected() -> T:
        kube = await connect()
        try:
            return await action(kube)
        finally:
            await kube.close()

    _default_kubeconfig()
    try:
        return asyncio.run(connected())
    except ProviderError as error:
        raise click.ClickException(str(error)) from error


def _default_kubeconfig() -> None:
    """As kubectl does it: without KUBECONFIG, the file in the home folder."""
    usual = Path.home() / ".kube" / "config"
    if "KUBECONFIG" in os.environ or "KUBERNETES_SERVICE_HOST" in os.environ:
        return
    if not usual.exists():
        raise click.ClickException(f"no cluster to talk to: set KUBECONFIG, or write {usual}")
    os.environ["KUBECONFIG"] = str(usual)


async def read(kube: Kubernetes, target: Target) -> Manifest:
    """The object; a sentence if there is none."""
    try:
        return await kube.get(*target)
    except NotFoundError as error:
        raise click.ClickException(f"{target} does not exist") from error


def health(obj: Manifest) -> Health:
    """Good only when the operator has seen the present spec and says so."""
    status = obj.get("status") or {}
    if status.get("observedGeneration", 0) < obj["metadata"].get("generation", 0):
        return Health.UNDER_WAY
    if obj["kind"] == "ModelVersion":
        return _by_conditions(status)
    phase = status.get("phase", "")
    if phase in ("Healthy", "Succeeded"):
        return Health.GOOD
    return Health.BAD if phase in ("Degraded", "Failed", "Rejected") else Health.UNDER_WAY


def _by_conditions(status: Manifest) -> Health:
    state = {c["type"]: c["status"] for c in status.get("conditions", ())}
    if state.get("Ready") == "True":
        return Health.GOOD
    return Health.BAD if state.get("Stalled") == "True" else Health.UNDER_WAY
