"""The router's command line, its HTTP side, and the loops beside it."""

import argparse
import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from prometheus_client import disable_created_metrics, generate_latest

from tuningfork.api.routes import ROUTER_PORT, ROUTES_KEY, RouterState, RouteTable, serving_config_map
from tuningfork_serving.openai import ApiError, error_body
from tuningfork_serving.router.backends import Address, Backends
from tuningfork_serving.router.feedback import Ids, Ratings, invalid_feedback, parse_feedback
from tuningfork_serving.router.metrics import Outcome, RouterMetrics
from tuningfork_serving.router.proxy import Proxy
from tuningfork_serving.router.request import parse_call
from tuningfork_serving.router.routes import Routes
from tuningfork_serving.server import configure_logging, serve
from tuningfork_serving.tables import Data, KubeApi, Source, follow

logger = logging.getLogger("tuningfork.router")
BODY_LIMIT = 16 * 1024**2
TICK_SECONDS = 1.0
LINGER_SECONDS = 3.0
"""Between red readiness and a closed socket: kube-proxy needs to hear of it."""
TIMEOUT_SECONDS = 600.0


class Router:
    """Everything together."""

    def __init__(
        self,
        source: Source,
        rollout: str,
        *,
        engines: Sequence[Address] = (),
        secret: str = "",
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        self._source, self._engines, self._timeout = source, engines, timeout
        self.metrics = RouterMetrics(source.namespace, rollout)
        self._ids = Ids.of_rollout(source.namespace, rollout, secret)
        self._ratings = Ratings()
        self.routes: Routes | None = None
        self.draining = False
        self._was_ready = False
        self.backends: Backends
        self._proxy: Proxy

    def app(self) -> web.Application:
        app = web.Application(client_max_size=BODY_LIMIT, middlewares=[_errors])
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_post("/v1/completions", self.complete)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/feedback", self.feedback)
        app.router.add_get("/-/routes", self.show_routes)
        app.router.add_get("/-/explain", self.explain)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", self.scrape)
        app.cleanup_ctx.append(self._run)
        return app

    async def _run(self, _: web.Application) -> AsyncIterator[None]:
        # Retries are ours, and counted; the client library's own would hide them.
        async with aiohttp.ClientSession(
            trust_env=False, connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        ) as session:
            self.backends = Backends(session, self._engines)
            self._proxy = Proxy(session, self.backends, self.metrics, self._ids, self._timeout)
            loops = (follow(self._source, self.accept), self.backends.run(self._service), self._tick())
            self._tasks = [asyncio.create_task(loop) for loop in loops]
            yield
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def accept(self, data: Data) -> None:
        """Takes a new table; one that cannot be read changes nothing."""
        try:
            routes = Routes(RouteTable.model_validate_json(data.get(ROUTES_KEY, "")))
        except ValueError as error:
            logger.error("%s is unusable, the last table stays: %s", ROUTES_KEY, error)
            return
        before, self.routes = self.routes, routes
        if before is None or before.table.generation != routes.table.generation:
            logger.info("route table %d", routes.table.generation)
        self._show()

    def _show(self) -> None:
        routes, now = self.routes, time.monotonic()
        if routes is not None:
            lanes = {self.metrics.labels(lane.track, lane.slice, lane.target.version) for lane in routes.lanes()}
            self.metrics.declare(lanes, now)
            self.metrics.show_routes(routes.table.generation, routes.weights(datetime.now(UTC)))
        self.metrics.sweep(now)

    async def _tick(self) -> None:
        """Leases run out and series grow old without any event."""
        valid = True
        while True:
            self._show()
            still = self.routes is None or self.routes.candidate_valid(datetime.now(UTC))
            if valid and not still:
                logger.warning("the candidate's lease ran out: its users get stable until it is renewed")
            valid = still
            await asyncio.sleep(TICK_SECONDS)

    def _service(self) -> str | None:
        return self.routes.table.engine_service if self.routes else None

    async def complete(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            call = parse_call(request.path, raw)
            routes = self._routes()
            user = request.headers.get(routes.table.sticky_header) or call.user
            lane = routes.lane(call.model, user, datetime.now(UTC))
        except ApiError as error:
            self.metrics.count_unassigned(Outcome.CLIENT_ERROR if error.status < 500 else Outcome.REJECTED)
            raise
        return await self._proxy.forward(request, call, routes, lane)

    def _routes(self) -> Routes:
        if self.routes is None:
            raise ApiError(503, "this router has no route table yet; try again later", "server_error", code="not_ready")
        return self.routes

    async def models(self, _: web.Request) -> web.Response:
        """The public name only; versions are nobody's business but a tester's."""
        card = {"id": self._routes().table.model, "object": "model", "created": 0, "owned_by": "tuningfork"}
        return web.json_response({"object": "list", "data": [card]})

    async def feedback(self, request: web.Request) -> web.Response:
        id_, rating = parse_feedback(await request.read())
        found = self._ids.read(id_)
        if found is None:
            raise invalid_feedback(f"{id_[:80]!r} is no id of an answer of this endpoint", "id")
        origin, answer = found
        counted = self._ratings.first(answer)
        if counted:
            labels = self.metrics.labels(origin.track, origin.slice, origin.version)
            self.metrics.rate(labels, rating, time.monotonic())
        return web.json_response({"id": id_, "rating": rating, "counted": counted})

    async def show_routes(self, _: web.Request) -> web.Response:
        state = self.routes.state(datetime.now(UTC)) if self.routes else RouterState(generation=0)
        return web.json_response(state.dump())

    async def explain(self, request: web.Request) -> web.Response:
        user = request.query.get("user")
        if not user:
            raise ApiError(400, "say which user: /-/explain?user=NAME", "invalid_request_error", param="user")
        return web.json_response(self._routes().explain(user, datetime.now(UTC)))

    async def healthz(self, _: web.Request) -> web.Response:
        """Red when a loop of ours has ended."""
        return web.Response(status=503 if any(task.done() for task in self._tasks) else 200)

    async def readyz(self, _: web.Request) -> web.Response:
        """Green once there is a stable version and an engine; then until the end, because a 503 that says why beats no endpoint."""
        stable = self.routes is not None and self.routes.table.stable is not None
        self._was_ready = self._was_ready or (stable and any(pod.engine_up for pod in self.backends.pods))
        return web.Response(status=200 if self._was_ready and not self.draining else 503)

    async def scrape(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.metrics.registry), content_type="text/plain", charset="utf-8")

    def drain(self) -> None:
        self.draining = True


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except ApiError as error:
        return error.response()
    except web.HTTPRequestEntityTooLarge:
        message = f"the body is larger than {BODY_LIMIT // 1024**2} MiB"
        return web.json_response(error_body(message, "invalid_request_error", code="body_too_large"), status=413)
    return response


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tuningfork-router", description=__doc__)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--rollout", required=True)
    parser.add_argument("--config-dir", type=Path, help="where the serving ConfigMap is mounted")
    parser.add_argument("--engines", help="host:port[:loader port],… instead of the Service's DNS records")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - a pod's server
    parser.add_argument("--port", type=int, default=ROUTER_PORT)
    parser.add_argument("--timeout", type=float, default=TIMEOUT_SECONDS, help="seconds of a whole request")
    return parser.parse_args()


def run() -> None:
    """Serves until SIGTERM. ROUTER_SECRET signs the completion ids; replicas must share it."""
    arguments = _arguments()
    configure_logging()
    disable_created_metrics()  # type: ignore[no-untyped-call]
    source = Source(
        arguments.namespace, serving_config_map(arguments.rollout), arguments.config_dir, KubeApi.in_cluster()
    )
    router = Router(
        source,
        arguments.rollout,
        engines=[Address.parse(text) for text in (arguments.engines or "").split(",") if text],
        secret=os.environ.get("ROUTER_SECRET", ""),
        timeout=arguments.timeout,
    )
    asyncio.run(serve(router.app(), arguments.host, arguments.port, on_drain=router.drain, linger=LINGER_SECONDS))
