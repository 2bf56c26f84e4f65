"""The loader's command line and HTTP side."""

import argparse
import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from aiohttp import web
from prometheus_client import disable_created_metrics, generate_latest
from pydantic import ValidationError

from tuningfork.api.routes import ADAPTERS_KEY, ENGINE_PORT, LOADER_PORT, AdapterTable, serving_config_map
from tuningfork_serving.loader.engine import EngineClient
from tuningfork_serving.loader.metrics import LoaderMetrics
from tuningfork_serving.loader.store import StoreError, fetch_model, open_folder
from tuningfork_serving.loader.sync import Sync
from tuningfork_serving.server import configure_logging, serve
from tuningfork_serving.tables import Data, KubeApi, Source, follow

logger = logging.getLogger("tuningfork.loader")


class Loader:
    """The sidecar."""

    def __init__(self, source: Source, engine_url: str, directory: Path) -> None:
        self._source, self._engine_url, self._directory = source, engine_url, directory
        self.metrics = LoaderMetrics()
        self.sync: Sync

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/adapters", self.adapters)
        app.router.add_get("/ready", self.ready)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/metrics", self.scrape)
        app.cleanup_ctx.append(self._run)
        return app

    async def _run(self, _: web.Application) -> AsyncIterator[None]:
        self._directory.mkdir(parents=True, exist_ok=True)
        async with aiohttp.ClientSession(trust_env=False) as session:
            engine = EngineClient(session, self._engine_url)
            self.sync = Sync(engine, self._directory, open_folder, self.metrics)
            self._tasks = [
                asyncio.create_task(follow(self._source, self._accept)),
                asyncio.create_task(self.sync.run()),
            ]
            yield
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, data: Data) -> None:
        try:
            table = AdapterTable.model_validate_json(data.get(ADAPTERS_KEY, ""))
        except ValidationError as error:
            logger.error("%s is unusable, the last table stays: %s", ADAPTERS_KEY, error.errors()[0])
            return
        self.sync.set_table(table)

    async def adapters(self, _: web.Request) -> web.Response:
        return web.json_response(self.sync.state().dump())

    async def ready(self, _: web.Request) -> web.Response:
        return web.json_response(self.sync.state().dump(), status=200 if self.sync.ready() else 503)

    async def healthz(self, _: web.Request) -> web.Response:
        """Red when a loop of ours has ended; an engine or an API server that is away is no reason to restart us."""
        ended = [task for task in self._tasks if task.done()]
        return web.Response(status=503 if ended else 200)

    async def scrape(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.metrics.registry), content_type="text/plain", charset="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tuningfork-loader", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch", help="download a base model and end; for an init container")
    fetch.add_argument("--uri", required=True, help="s3://bucket/prefix or file:///folder")
    fetch.add_argument("--to", required=True, type=Path, help="folder to create; below a mount, not the mount itself")
    run = commands.add_parser("run", help="keep the engine's adapters equal to the table")
    run.add_argument("--namespace", required=True)
    run.add_argument("--rollout", required=True)
    run.add_argument("--config-dir", type=Path, help="where the serving ConfigMap is mounted")
    run.add_argument("--adapters-dir", type=Path, required=True, help="shared with the engine, at the same path")
    run.add_argument("--engine", default=f"http://127.0.0.1:{ENGINE_PORT}")
    run.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a pod's server
    run.add_argument("--port", type=int, default=LOADER_PORT)
    return parser.parse_args()


def run() -> None:
    """`fetch` or `run`."""
    arguments = _arguments()
    configure_logging()
    if arguments.command == "fetch":
        try:
            fetch_model(open_folder(arguments.uri), arguments.to)
        except StoreError as error:
            sys.exit(f"cannot fetch the base model: {error}")
        return
    disable_created_metrics()  # type: ignore[no-untyped-call]
    name = serving_config_map(arguments.rollout)
    source = Source(arguments.namespace, name, arguments.config_dir, KubeApi.in_cluster())
    loader = Loader(source, arguments.engine, arguments.adapters_dir)
    asyncio.run(serve(loader.app(), arguments.host, arguments.port))
