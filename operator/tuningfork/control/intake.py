"""The status intake: training pods post their progress over TLS, and only on their own job.

The token is a projected service-account token with our audience. TokenReview says which pod it was given to, and that pod must carry
the labels of the job and attempt that it reports on; a token of another pod, namespace or attempt is refused. Reports are kept in
memory, the newest of each job: a lost one is followed by the next. Any replica may be reached through the Service; a
standby passes the report on to whoever holds the Lease. A patch of the job's status by the pod itself was rejected: every training
pod would need the right to write status, and could write any.
"""

import asyncio
import hashlib
import logging
import ssl
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

import aiohttp
from aiohttp import web
from pydantic import ValidationError

from tuningfork.api._meta import LABEL_ATTEMPT, LABEL_JOB
from tuningfork.api.jobfile import INTAKE_AUDIENCE, ProgressReport
from tuningfork.control.controller import Key, Store
from tuningfork.control.queue import WorkQueue
from tuningfork.planning.plan import Manifest
from tuningfork.providers import errors
from tuningfork.providers.kubernetes import Kubernetes

logger = logging.getLogger(__name__)

PATH: Final = "/v1/progress"

ENQUEUE_SECONDS: Final = 1.0
"""A job is looked at again at most this often because of reports; each look may write its status."""

REVIEW_SECONDS: Final = 60.0
"""How long an answer about a token is believed. A pod posts every second; its token lives for an hour."""

REVIEWS_LIMIT: Final = 10_000
FORWARD_SECONDS: Final = 3
"""The trainer gives up after 2."""

FORWARDED: Final = "X-Tuningfork-Forwarded"
"""On a report that a standby passed on; it is not passed on again."""

BODY_LIMIT: Final = 16 * 1024

_POD = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_ACCOUNT = "system:serviceaccount:"


class ProgressBoard:
    """The newest report of each job. Controllers read it; the intake writes it."""

    def __init__(self, queue: WorkQueue[Key]) -> None:
        self._queue = queue
        self._reports: dict[tuple[str, str], tuple[ProgressReport, datetime]] = {}
        self._enqueued: dict[tuple[str, str], float] = {}

    def latest(self, namespace: str, job: str) -> tuple[ProgressReport, datetime] | None:
        """The report and when it came."""
        return self._reports.get((namespace, job))

    def put(self, report: ProgressReport, at: datetime) -> None:
        name = (report.namespace, report.job)
        self._reports[name] = (report, at)
        now, last = asyncio.get_running_loop().time(), self._enqueued.get(name, float("-inf"))
        if last > now:
            return  # the look that is due will see this report
        self._enqueued[name] = max(now, last + ENQUEUE_SECONDS)
        self._queue.add_after(Key("FineTuneJob", *name), self._enqueued[name] - now)

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._reports.pop((key.namespace, key.name), None)
        self._enqueued.pop((key.namespace, key.name), None)


class PodIdentity(NamedTuple):
    """Whose token it is."""

    namespace: str
    name: str
    uid: str


class Tokens:
    """Asks the API server whose a token is, and remembers the answer under the token's hash."""

    def __init__(self, kube: Kubernetes) -> None:
        self._kube = kube
        self._known: OrderedDict[bytes, tuple[float, PodIdentity | None]] = OrderedDict()

    async def pod_of(self, token: str) -> PodIdentity | None:
        """The pod, or None for a token that is invalid, of another audience, or not of a pod."""
        digest, now = hashlib.sha256(token.encode()).digest(), asyncio.get_running_loop().time()
        if (known := self._known.get(digest)) and now - known[0] < REVIEW_SECONDS:
            return known[1]
        pod = read_review(await self._kube.review_token(token, INTAKE_AUDIENCE))
        self._known[digest] = (now, pod)
        self._known.move_to_end(digest)
        if len(self._known) > REVIEWS_LIMIT:
            self._known.popitem(last=False)
        return pod


def read_review(status: Manifest) -> PodIdentity | None:
    """The pod that a TokenReview's status speaks of."""
    user = status.get("user") or {}
    extra = user.get("extra") or {}
    account = str(user.get("username", ""))
    if not status.get("authenticated") or INTAKE_AUDIENCE not in (status.get("audiences") or []):
        return None
    if not account.startswith(_ACCOUNT) or not extra.get(_POD) or not extra.get(_POD_UID):
        return None
    return PodIdentity(account.removeprefix(_ACCOUNT).split(":")[0], extra[_POD][0], extra[_POD_UID][0])


def refusal(report: ProgressReport, pod: PodIdentity, store: Store) -> str | None:
    """Why this pod may not report this, or None."""
    seen = store.get("Pod", pod.namespace, pod.name)
    if seen is None or seen["metadata"]["uid"] != pod.uid:
        return f"pod {pod.namespace}/{pod.name} is no training pod"
    labels = seen["metadata"].get("labels", {})
    own = (pod.namespace, labels.get(LABEL_JOB), labels.get(LABEL_ATTEMPT))
    if own != (report.namespace, report.job, str(report.attempt)):
        return (
            f"pod {pod.namespace}/{pod.name} belongs to job {own[1]}, attempt {own[2]}:"
            f" it cannot report on {report.namespace}/{report.job}, attempt {report.attempt}"
        )
    return None


class Intake:
    """The HTTPS handler. ``leads`` and ``leader`` say whether we hold the Lease, and who does (<name>_<address>)."""

    def __init__(
        self,
        tokens: Tokens,
        store: Store,
        board: ProgressBoard,
        *,
        now: Callable[[], datetime],
        leads: Callable[[], bool],
        leader: Callable[[], str],
        forward: "Forwarder",
    ) -> None:
        self._tokens = tokens
        self._store = store
        self._board = board
        self._now = now
        self._leads = leads
        self._leader = leader
        self._forward = forward

    def build_app(self) -> web.Application:
        """The HTTPS server's application."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.add_routes([web.post(PATH, self._handle)])
        return app

    async def _handle(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return web.Response(status=401, text="a service-account token is needed: Authorization: Bearer ...")
        body = await request.read()
        if not self._leads():
            if FORWARDED in request.headers:
                return web.Response(status=503, text="nobody leads at the moment")
            return await self._forward(self._leader(), token, body)
        return await self._accept(token, body)

    async def _accept(self, token: str, body: bytes) -> web.Response:
        try:
            report = ProgressReport.model_validate_json(body)
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            return web.Response(status=400, text=f"no ProgressReport: {problems}")
        try:
            pod = await self._tokens.pod_of(token)
        except errors.ProviderError as error:
            logger.warning("intake: %s", error)
            return web.Response(status=503, text="tokens cannot be checked at the moment")
        if pod is None:
            return web.Response(
                status=401, text=f"the token is invalid, or not of a pod with audience {INTAKE_AUDIENCE}"
            )
        if reason := refusal(report, pod, self._store):
            return web.Response(status=403, text=reason)
        self._board.put(report, self._now())
        return web.Response(status=204)


class Forwarder:
    """Passes a report on to the leader's pod, and its answer back."""

    def __init__(self, port: int, server_name: str, ca_pem: Callable[[], str]) -> None:
        self._port = port
        self._server_name = server_name
        self._ca_pem = ca_pem

    async def __call__(self, leader: str, token: str, body: bytes) -> web.Response:
        address = leader.rpartition("_")[2]
        if not address:
            return web.Response(status=503, text="nobody leads at the moment")
        host = f"[{address}]" if ":" in address else address
        headers = {"Authorization": f"Bearer {token}", FORWARDED: "1", "Content-Type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=FORWARD_SECONDS)
        context = ssl.create_default_context(cadata=self._ca_pem())
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
                session.post(
                    f"https://{host}:{self._port}{PATH}",
                    data=body,
                    headers=headers,
                    ssl=context,
                    server_hostname=self._server_name,
                ) as answer,
            ):
                return web.Response(status=answer.status, text=await answer.text())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            logger.debug("intake: the leader at %s: %s", address, error)
            return web.Response(status=503, text="the leader does not answer")
