"""`tuningfork estimate`: how much memory a job needs and where it would go, before anything is submitted.

Works without a cluster, where the model's config.json can be read: it chooses from the whole catalogue, and takes every example to be
as long as the spec allows. In the cluster the operator sizes again, with the prepared data and the nodes that are there.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import click

from tuningfork.api import FineTuneJob
from tuningfork.api.finetunejob import Sizing
from tuningfork.api.settings import S3Settings
from tuningfork.cli.jobs import read_job
from tuningfork.planning.storage import StorageError
from tuningfork.providers.models import read_model
from tuningfork.providers.s3 import S3
from tuningfork.sizing import GIB, NothingFits, UnknownModuleError, catalogue_offers, choose, workload


@click.command()
@click.option("-f", "--filename", required=True, type=click.Path(path_type=Path), help="FineTuneJob manifest.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def estimate(filename: Path, output: str) -> None:
    """Memory of a FineTuneJob, and the accelerator that it would get.

    file:// models are read from disk, s3:// with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL of the environment.
    Exit status 1: nothing that the job accepts can hold it.
    """
    sizing = _size(read_job(filename))
    print_json = output == "json"
    if isinstance(sizing, NothingFits):
        click.echo(json.dumps({"choice": None, "message": sizing.message}) if print_json else sizing.message)
        raise SystemExit(1)
    click.echo(json.dumps(_as_json(sizing), indent=2) if print_json else _as_text(sizing))


def _size(job: FineTuneJob) -> Sizing | NothingFits:
    uri = job.spec.model.uri
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    s3 = S3(S3Settings(endpoint=os.environ.get("AWS_ENDPOINT_URL"), region=region))
    try:
        model = asyncio.run(read_model(uri, s3))
        work = workload(job.spec, model.config, weight_bytes=model.weight_bytes)
    except StorageError as error:
        raise click.ClickException(f"spec.model.uri: {error}") from error
    except KeyError as error:
        raise click.ClickException(f"spec.model.uri: {uri} cannot be sized: {error.args[0]}") from error
    except (UnknownModuleError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    return choose(work, job.spec.compute.accelerators, catalogue_offers(_memory_here()))


def _memory_here() -> int:
    """Stands for the largest node of a cluster that is not asked."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _as_json(sizing: Sizing) -> dict[str, Any]:
    dumped = sizing.dump()
    choice = {key: dumped.pop(key) for key in ("accelerator", "count", "nodes")}
    return {"perGpuBytes": dumped.pop("perGpuBytes"), "breakdown": dumped.pop("breakdown"), "choice": choice, **dumped}


def _as_text(sizing: Sizing) -> str:
    parts = [f"  {name:<12} {size / GIB:8.2f} GiB" for name, size in sizing.breakdown.items()]
    return "\n".join([sizing.message, *parts, f"  {'total':<12} {sizing.per_gpu_bytes / GIB:8.2f} GiB"])
