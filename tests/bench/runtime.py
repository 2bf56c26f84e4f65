"""The control runtime's speed: N jobs get a child and a status each, on the development cluster. One JSON line a number.

    PYTHONPATH=tests:hack python tests/bench/runtime.py [N]

The peer is the API server itself in the same run: a bare client that makes the same writes for other objects, as many at a time as
the operator has workers. The ratio says what watching, storing, planning and comparing cost on top.
"""

import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from support.api_server import cluster_kubectl, namespace
from support.cluster import read_cluster
from support.operators import OperatorProcess
from support.toy import CONFIG_MAPS, JOBS, build_child
from support.toy_world import make_job
from tuningfork.providers.kubernetes import Kubernetes, connect

WORKERS = 16
DEADLINE = 600.0


def report(name: str, value: float, unit: str, against: str) -> None:
    print(json.dumps({"name": name, "value": round(value, 2), "unit": unit, "against": against}), flush=True)


async def in_parallel(names: list[str], work: Callable[[str], Awaitable[object]]) -> float:
    """Seconds until it is done for every name, WORKERS at a time."""
    waiting = iter(names)

    async def worker() -> None:
        for name in waiting:
            await work(name)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(WORKERS)))
    return time.perf_counter() - began


async def bare_client(kube: Kubernetes, ns: str, count: int) -> float:
    """Seconds of the same writes without an operator: apply a child, then write the status twice."""
    names = [f"bare-{i}" for i in range(count)]
    await in_parallel(names, lambda name: kube.create(JOBS, make_job(ns, name)))

    async def write(name: str) -> None:
        job = await kube.get(JOBS, ns, name)
        await kube.apply(CONFIG_MAPS, build_child(job, {"seed": "1"}))
        for message in ("child missing", "child there"):
            job = await kube.replace_status(JOBS, job | {"status": {"phase": "Training", "message": message}})

    return await in_parallel(names, write)


async def settle(kube: Kubernetes, ns: str, count: int) -> None:
    ends = time.perf_counter() + DEADLINE
    while time.perf_counter() < ends:
        jobs = (await kube.list(JOBS, namespace=ns)).items
        if sum("child there" in (job.get("status") or {}).get("message", "") for job in jobs) == count:
            return
        await asyncio.sleep(0.25)
    raise TimeoutError(f"not every job is settled after {DEADLINE:g} s")


def _requests(resource: str, verb: str) -> str:
    return f'tuningfork_api_requests_total{{code="200",resource="{resource}",verb="{verb}"'


def memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


async def bench(kube: Kubernetes, bare_ns: str, ns: str, count: int, folder: Path) -> None:
    bare = await bare_client(kube, bare_ns, count)
    names = [f"job-{i}" for i in range(count)]
    await in_parallel(names, lambda name: kube.create(JOBS, make_job(ns, name)))
    kubeconfig = read_cluster().kubeconfig
    numbers = itertools.count(2)

    def operator() -> OperatorProcess:
        return OperatorProcess("bench", f"127.9.9.{next(numbers)}", ns, kubeconfig, folder / "log", log_level="WARNING")

    first = operator()
    first.start()
    began = time.perf_counter()
    await settle(kube, ns, count)
    taken = time.perf_counter() - began
    against = f"{count / bare:.0f} objects/s of a bare client with the same three writes each, {WORKERS} at a time"
    report("runtime.objects_per_second", count / taken, f"objects/s, {count} objects, process start included", against)
    report("runtime.memory", memory_mib(first.process.pid), "MiB", f"{count} parents and as many children in the store")
    first.terminate()

    second = operator()
    second.start()
    began = time.perf_counter()
    while second.metric("tuningfork_reconciles_total") < count:
        await asyncio.sleep(0.1)
    report("runtime.restart", time.perf_counter() - began, "s until each was reconciled", f"{count} converged objects")
    written = second.metric(_requests("configmaps", "patch")) + second.metric(_requests("finetunejobs", "update"))
    report("runtime.restart_writes", written, "writes", "none are needed")
    second.terminate()


async def main(count: int) -> None:
    os.environ["KUBECONFIG"] = str(read_cluster().kubeconfig)
    kubectl = cluster_kubectl()
    kube = await connect()
    with (
        tempfile.TemporaryDirectory() as folder,
        namespace(kubectl, "bench") as bare,
        namespace(kubectl, "bench") as ns,
    ):
        await bench(kube, bare, ns, count, Path(folder))
    await kube.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000))
