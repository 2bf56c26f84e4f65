"""What tests of the runtime do with toy jobs (`support.toy`) on a real API server."""

import asyncio

from support.toy import CONFIG_MAPS, JOBS
from support.waiting import SOON, eventually
from tuningfork.planning.plan import Manifest
from tuningfork.providers import errors
from tuningfork.providers.kubernetes import Kubernetes


class World:
    """The namespace's jobs and their children."""

    def __init__(self, kube: Kubernetes, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace

    async def create(self, *names: str, seed: int = 1) -> None:
        await asyncio.gather(*(self.kube.create(JOBS, make_job(self.namespace, name, seed)) for name in names))

    async def set_seed(self, name: str, seed: int) -> None:
        await self.kube.patch(JOBS, self.namespace, name, {"metadata": {"labels": {"seed": str(seed)}}})

    async def child(self, name: str) -> Manifest | None:
        try:
            return await self.kube.get(CONFIG_MAPS, self.namespace, name)
        except errors.NotFoundError:
            return None

    async def message(self, name: str) -> str:
        job = await self.kube.get(JOBS, self.namespace, name)
        return str((job.get("status") or {}).get("message", ""))

    async def settled(self, *names: str, seed: int = 1, within: float = SOON) -> None:
        """Until each has its child, and the status says so."""

        async def settled() -> bool:
            messages = await asyncio.gather(*map(self.message, names))
            wrong = [m for m in messages if f"child there, seed {seed}," not in m]
            assert not wrong, wrong[0]
            return True

        await eventually(settled, within=within)


def make_job(namespace: str, name: str, seed: int = 1) -> Manifest:
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {"seed": str(seed)}},
        "spec": {
            "model": {"uri": "s3://models/base"},
            "data": {"sources": [{"name": "s", "uri": "s3://data/x.jsonl"}]},
            "output": {"uri": "s3://models/runs"},
        },
    }
