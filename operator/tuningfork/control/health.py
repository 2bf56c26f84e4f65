"""/healthz, /readyz and /metrics.

/healthz is red when a loop of ours is stuck: each says until when it will be heard of again. It does not ask whether the API server
answers, because restarting the operator repairs no API server and loses the standby's warm store. A blocked event loop needs no
check of its own: then nobody answers the probe.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiohttp import web

from tuningfork.control.metrics import Metrics


class Heartbeats:
    """Until when each loop must be heard of again; ``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    def beat(self, name: str, within: float) -> None:
        """Here I am, and again within so many seconds."""
        self._until[name] = self._clock() + within

    def rest(self, name: str) -> None:
        """I wait for work, for as long as it takes."""
        self._until.pop(name, None)

    @contextmanager
    def busy(self, name: str, within: float) -> Iterator[None]:
        """Work that ends within so many seconds."""
        self.beat(name, within)
        try:
            yield
        finally:
            self.rest(name)

    def stuck(self) -> list[str]:
        """The loops that are overdue, and for how long."""
        now = self._clock()
        return [f"{name} is {now - until:.0f} s overdue" for name, until in sorted(self._until.items()) if until < now]


def build_app(heartbeats: Heartbeats, is_ready: Callable[[], bool], metrics: Metrics) -> web.Application:
    """The HTTP server's application."""

    async def healthz(_: web.Request) -> web.Response:
        stuck = heartbeats.stuck()
        return web.Response(text="\n".join(stuck) or "ok", status=500 if stuck else 200)

    async def readyz(_: web.Request) -> web.Response:
        ready = is_ready()
        return web.Response(
            text="ok" if ready else "the objects of the cluster are not read yet", status=200 if ready else 503
        )

    async def exposition(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=metrics.exposition(), headers=headers)

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", exposition)])
    return app
