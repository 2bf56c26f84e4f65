"""A controller as small as can be, on the real CRDs: a FineTuneJob gets a ConfigMap and a status, and nothing else happens.

It is what tests of the runtime run, in this process or as a program of its own (``python -m support.toy``), where the runtime and not
the planners is in question.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from tuningfork.api import Settings
from tuningfork.api._meta import LABEL_JOB
from tuningfork.api.finetunejob import FineTuneJobStatus, Phase
from tuningfork.api.settings import Images
from tuningfork.control.controller import Controller, Key, Outside, Reading, Resource, Store, Watched
from tuningfork.control.intake import ProgressBoard
from tuningfork.control.run import Process, run_operator
from tuningfork.planning.plan import Event, Manifest, Plan

JOBS = Resource("tuningfork.dev/v1alpha1", "FineTuneJob", "finetunejobs")
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")
PODS = Resource("v1", "Pod", "pods")

HUNG = "hung"
"""Name of a job whose outside read never ends."""


@dataclass(frozen=True)
class Seen:
    job: Manifest
    child: Manifest | None
    reading: Reading[str] | None
    step: int


class ToyController:
    """Wants a ConfigMap with the seed that is the value of a label of the job, and says so in status."""

    resource = JOBS

    def __init__(self, store: Store, outside: Outside, progress: ProgressBoard) -> None:
        self._store = store
        self._outside = outside
        self._progress = progress
        self.watched: tuple[Watched, ...] = (
            Watched(CONFIG_MAPS, LABEL_JOB, _job_of),
            Watched(PODS, LABEL_JOB, _job_of),
        )

    def observe(self, parent: Manifest) -> Seen:
        name, namespace = parent["metadata"]["name"], parent["metadata"]["namespace"]
        reading = None
        if name == HUNG:
            reading = self._outside.latest("hung", Key("FineTuneJob", namespace, name), _hang, max_age=60, timeout=60)
        report = self._progress.latest(namespace, name)
        child = self._store.get("ConfigMap", namespace, name)
        return Seen(parent, child, reading, report[0].step if report else 0)

    def plan(self, observed: Seen, now: datetime) -> Plan:
        job = observed.job
        seed = job["metadata"]["labels"]["seed"]
        message = f"child {'there' if observed.child else 'missing'}, seed {seed}, step {observed.step}"
        said = (job.get("status") or {}).get("message")
        generation = job["metadata"]["generation"]
        status = FineTuneJobStatus(observed_generation=generation, phase=Phase.TRAINING, message=message)
        return Plan(
            apply=(build_child(job, {"seed": seed}),),
            status=status.dump(),
            events=() if message == said else (Event("Normal", "Toy", message),),
            why=(message,),
        )


def build_child(job: Manifest, data: dict[str, str]) -> Manifest:
    metadata = job["metadata"]
    owner = {"apiVersion": job["apiVersion"], "kind": job["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {LABEL_JOB: metadata["name"]},
            "ownerReferences": [owner | {"controller": True}],
        },
        "data": data,
    }


def _job_of(child: Manifest) -> list[Key]:
    return [Key("FineTuneJob", child["metadata"]["namespace"], child["metadata"]["labels"][LABEL_JOB])]


async def _hang() -> str:
    await asyncio.Event().wait()
    return "never"


def build(
    settings: Settings, store: Store, outside: Outside, progress: ProgressBoard, ca_pem: Callable[[], str]
) -> list[Controller]:
    return [ToyController(store, outside, progress)]


def toy_settings(namespace: str, **more: object) -> Settings:
    return Settings(
        images=Images(trainer="none", serving="none"),
        namespaces=[namespace],
        namespace=namespace,
        **more,
    )


def main() -> None:
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(asctime)s %(name)s: %(message)s")
    host = os.environ["TOY_HOST"]
    process = Process(
        identity=f"{os.environ['POD_NAME']}_{host}",
        host=host,
        prune_seconds=float(os.environ.get("TOY_PRUNE_SECONDS", "300")),
    )
    asyncio.run(run_operator(toy_settings(os.environ["TOY_NAMESPACE"]), process, build))


if __name__ == "__main__":
    main()
