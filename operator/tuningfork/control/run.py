"""The process: puts the parts together, starts them in order, and ends them in order.

Start: health, then the watch and a complete list, then the intake, then the Lease, and only with it the workers; a standby has done
everything but the last. End, on SIGTERM: no new keys, running reconciles finish, the Lease is released, the rest is cancelled. A part
that ends by itself ends the process: half an operator looks healthy and is not.
"""

import asyncio
import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final, NoReturn

from aiohttp import web

from tuningfork.api import Settings
from tuningfork.control import edge, health
from tuningfork.control.certs import Certificates, server_name
from tuningfork.control.clock import now
from tuningfork.control.controller import Controller, Key, Outside, Store
from tuningfork.control.events import EventRecorder
from tuningfork.control.executor import Executor
from tuningfork.control.intake import Forwarder, Intake, ProgressBoard, Tokens
from tuningfork.control.lease import Lease
from tuningfork.control.metrics import Metrics
from tuningfork.control.outside import OutsideReads
from tuningfork.control.prune import PRUNE_SECONDS, Lister
from tuningfork.control.queue import WorkQueue
from tuningfork.control.reconcile import Reconciler
from tuningfork.control.store import MemoryStore, name_of
from tuningfork.planning.plan import Manifest
from tuningfork.providers.kubernetes import Kubernetes, connect

logger = logging.getLogger(__name__)

FINISH_SECONDS: Final = 10
"""How long running reconciles may take at the end; the pod's grace period is 30 s."""

Build = Callable[[Settings, Store, Outside, ProgressBoard, Callable[[], str]], list[Controller]]


@dataclass(frozen=True)
class Process:
    """What differs from one replica to the next, or in a test."""

    identity: str
    """Holder of the Lease: <pod's name>_<pod's address>."""
    host: str = "0.0.0.0"  # noqa: S104 - in a pod, kubelet and Prometheus come from outside
    http_port: int = 8080
    intake_port: int = 9443
    prune_seconds: float = PRUNE_SECONDS


class Runtime:
    """One replica of the operator."""

    def __init__(self, settings: Settings, process: Process, kube: Kubernetes, metrics: Metrics, build: Build) -> None:
        self._settings = settings
        self._process = process
        self._kube = kube
        self._metrics = metrics
        self._heartbeats = health.Heartbeats(asyncio.get_running_loop().time)
        self._synced = False
        self._stop = asyncio.Event()
        self._stop_watching = asyncio.Event()
        self._workers: list[asyncio.Task[None]] = []
        self.store = MemoryStore()
        self.queue = WorkQueue[Key]()
        self.progress = ProgressBoard(self.queue)
        self.outside = OutsideReads(self.queue, now, metrics.count_read)
        self._lease = self._build_lease()
        self._certificates = self._build_certificates()
        controllers = build(settings, self.store, self.outside, self.progress, self._certificates.ca_pem)
        self._controllers = {controller.resource.kind: controller for controller in controllers}
        self._selectors = edge.selectors_of(controllers)
        self._lister = Lister(kube, self.store, self._selectors, settings.namespaces, self._enqueue, self._heartbeats)
        metrics.watch_objects(self.store, self._controllers)
        metrics.depth.set_function(lambda: len(self.queue) if self._lease.held() else 0)
        metrics.leader.set_function(self._lease.held)

    async def run(self) -> None:
        """Until `stop`, or until a part fails."""
        watching = asyncio.ensure_future(
            edge.watch(self._selectors, self._settings.namespaces, self._saw, stop=self._stop_watching)
        )
        leading = asyncio.ensure_future(self._lead())
        stopping = asyncio.ensure_future(self._stop.wait())
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self._kube.close)
            closing.push_async_callback(self._end_watching, watching)
            app = health.build_app(self._heartbeats, lambda: self._synced, self._metrics)
            await closing.enter_async_context(_served(app, self._process.host, self._process.http_port))
            done, _ = await asyncio.wait({watching, leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await self._finish(leading)
            stopping.cancel()
            for part in done:
                part.result()

    def stop(self) -> None:
        """Ends in order."""
        self._stop.set()

    async def _lead(self) -> None:
        """Reads everything, waits for the Lease, reconciles."""
        await self._lister.sync()
        self._synced = True
        _on_signals(self.stop)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lister.run(self._process.prune_seconds), name="prune")
            group.create_task(self._certificates.run(), name="certificates")
            group.create_task(self._take_in(), name="intake")
            await self._lease.acquire()
            group.create_task(self._lease.hold(), name="lease")
            self._enqueue_all()
            reconciler = self._build_reconciler()
            for i in range(self._settings.workers):
                name = f"worker {i}"
                self._workers.append(group.create_task(reconciler.work(name, self._heartbeats), name=name))

    async def _take_in(self) -> None:
        """Serves the intake as soon as there is a certificate, whoever leads."""
        await self._certificates.loaded.wait()
        app = self._build_intake().build_app()
        process, context = self._process, self._certificates.context
        async with _served(app, process.host, process.intake_port, context):
            await asyncio.Event().wait()

    async def _finish(self, leading: asyncio.Future[None]) -> None:
        """The end of what writes: running reconciles, then the Lease, so that nobody else begins before we are done."""
        self.queue.close()
        if self._workers:
            _, stuck = await asyncio.wait(self._workers, timeout=FINISH_SECONDS)
            for worker in stuck:
                worker.cancel()
            await asyncio.wait(self._workers)
        await self._lease.release()
        leading.cancel()
        await self.outside.close()
        await asyncio.wait({leading})

    async def _end_watching(self, watching: asyncio.Future[None]) -> None:
        """Last of all, because kopf ends every task in the loop that is younger than itself."""
        self._stop_watching.set()
        await asyncio.wait({watching})

    def _saw(self, obj: Manifest, deleted: bool = False) -> None:
        """An object as the watch or the answer to a write of ours shows it."""
        if self.store.remove(obj) if deleted else self.store.put(obj):
            self._enqueue(obj)

    def _enqueue(self, obj: Manifest) -> None:
        """Whoever the object concerns is looked at."""
        kind = obj["kind"]
        for controller in self._controllers.values():
            if controller.resource.kind == kind:
                self.queue.add(Key(kind, *name_of(obj)))
            for watched in controller.watched:
                if watched.resource.kind == kind and _has_label(obj, watched.label):
                    for key in watched.keys(obj):
                        self.queue.add(key)

    def _enqueue_all(self) -> None:
        for kind in self._controllers:
            for parent in self.store.list(kind):
                self.queue.add(Key(kind, *name_of(parent)))

    def _build_lease(self) -> Lease:
        return Lease(
            self._kube,
            self._settings.namespace,
            self._settings.lease_name,
            self._process.identity,
            now=now,
            on_lost=_end_at_once,
            heartbeats=self._heartbeats,
        )

    def _build_certificates(self) -> Certificates:
        return Certificates(
            self._kube,
            self._settings.service_name,
            self._settings.namespace,
            now=now,
            may_make=self._lease.held,
            heartbeats=self._heartbeats,
            on_new_authority=self._enqueue_all,
        )

    def _build_intake(self) -> Intake:
        name = server_name(self._settings.service_name, self._settings.namespace)
        return Intake(
            Tokens(self._kube),
            self.store,
            self.progress,
            now=now,
            leads=self._lease.held,
            leader=lambda: self._lease.holder,
            forward=Forwarder(self._process.intake_port, name, self._certificates.ca_pem),
        )

    def _build_reconciler(self) -> Reconciler:
        events = EventRecorder(self._kube, now)
        return Reconciler(
            self._controllers,
            self.store,
            self.queue,
            Executor(self._kube, self.store, self._saw, events, self._selectors),
            self.outside,
            events,
            self._metrics,
            now,
            may_act=self._lease.held,
            on_gone=self.progress.forget,
        )


async def run_operator(settings: Settings, process: Process, build: Build) -> None:
    """Runs until SIGTERM or SIGINT."""
    metrics = Metrics()
    kube = await connect(metrics.count_request)
    await Runtime(settings, process, kube, metrics, build).run()


def _has_label(obj: Manifest, label: str | None) -> bool:
    return label is None or label in obj["metadata"].get("labels", {})


def _on_signals(stop: Callable[[], None]) -> None:
    """After kopf, which has put its own in their place at start; until then it ends, and with it this process."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def _end_at_once() -> NoReturn:
    """Without another word to the API server: what we hold in flight may be another's already."""
    logging.shutdown()
    os._exit(1)


@asynccontextmanager
async def _served(
    app: web.Application, host: str, port: int, context: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=context).start()
        yield
    finally:
        await runner.cleanup()
