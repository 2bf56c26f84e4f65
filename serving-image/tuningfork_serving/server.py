"""Runs an aiohttp application until SIGTERM and lets running requests end.

`web.run_app` closes the listening socket at once, while kube-proxy may still send for a moment; here the readiness goes red first,
the socket stays open for ``linger``, and only then the running requests get the rest of ``grace`` to end. A client that leaves
cancels its handler, which is how an abandoned generation stops costing anything.
"""

import asyncio
import logging
import signal
from collections.abc import Callable

from aiohttp import web

GRACE_SECONDS = 25.0
"""Below Kubernetes' default terminationGracePeriodSeconds of 30."""


def configure_logging() -> None:
    """One line a record on stderr; of libraries only what is wrong."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("tuningfork").setLevel(logging.INFO)


async def serve(
    app: web.Application,
    host: str,
    port: int,
    *,
    on_drain: Callable[[], None] = lambda: None,
    linger: float = 0.0,
    grace: float = GRACE_SECONDS,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains."""
    stop = asyncio.Event()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_, stop.set)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=grace - linger)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    logging.getLogger("tuningfork.server").info("listening on %s:%d", host, port)
    await stop.wait()
    on_drain()
    await asyncio.sleep(linger)
    await runner.cleanup()
