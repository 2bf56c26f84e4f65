"""Progress with real tokens over real TLS, to the leader and to the standby."""

import base64
import json
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from devcluster.kube import Kubectl
from support.operators import OperatorProcess
from support.toy import PODS
from support.toy_world import World
from support.waiting import eventually
from tuningfork.api._meta import LABEL_ATTEMPT, LABEL_JOB
from tuningfork.providers.kubernetes import Kubernetes, Resource

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

Start = Callable[..., OperatorProcess]
SECRETS = Resource("v1", "Secret", "secrets")

NO_INTEGER = "Input should be a valid integer, unable to parse string as an integer"


class Pods:
    """Training pods that are never scheduled: to have an identity, a pod need not run."""

    def __init__(self, kubectl: Kubectl, kube: Kubernetes, namespace: str) -> None:
        self._kubectl = kubectl
        self._kube = kube
        self.namespace = namespace

    async def create(self, name: str, job: str, attempt: int) -> None:
        container = {"name": "c", "image": "none"}
        metadata = {
            "name": name,
            "namespace": self.namespace,
            "labels": {LABEL_JOB: job, LABEL_ATTEMPT: str(attempt)},
        }
        spec = {"schedulerName": "nobody", "containers": [container]}
        await self._kube.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})

    def token(self, pod: str, audience: str = "tuningfork-intake") -> str:
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod}", f"--audience={audience}")
        return self._kubectl("create", "token", "default", f"--namespace={self.namespace}", *bound).strip()


@pytest.fixture
async def pods(kubectl: Kubectl, kube: Kubernetes, ns: str) -> Pods:
    pods = Pods(kubectl, kube, ns)
    await pods.create("own", "a", 1)
    await pods.create("other", "b", 1)
    return pods


async def post(kube: Kubernetes, operator: OperatorProcess, token: str | None, body: Any) -> tuple[int, str]:
    secret = await kube.get(SECRETS, operator.namespace, "tuningfork-tls")
    context = ssl.create_default_context(cadata=base64.b64decode(secret["data"]["ca.crt"]).decode())
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    name = f"tuningfork.{operator.namespace}.svc"
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://{operator.address}:9443/v1/progress",
            data=json.dumps(body),
            headers=headers,
            ssl=context,
            server_hostname=name,
        ) as answer,
    ):
        return answer.status, await answer.text()


async def serving(kube: Kubernetes, *operators: OperatorProcess) -> None:
    async def all_answer() -> bool:
        try:
            return all([(await post(kube, operator, None, {}))[0] == 401 for operator in operators])
        except Exception as error:  # whatever it says, it is not there yet
            raise AssertionError(repr(error)) from error

    await eventually(all_answer)


async def test_reports_reach_the_job_whichever_replica_gets_them(
    world: World, start: Start, kube: Kubernetes, pods: Pods
) -> None:
    await world.create("a")
    leader, standby = start("one"), start("two")
    await world.settled("a")
    await serving(kube, leader, standby)
    assert not standby.leads()
    token = pods.token("own")
    for operator, step in ((leader, 7), (standby, 8)):
        report = {"namespace": world.namespace, "job": "a", "attempt": 1, "stage": "train", "step": step}
        assert await post(kube, operator, token, report) == (204, "")

        async def shown(step: int = step) -> bool:
            return f"step {step}" in await world.message("a")

        await eventually(shown)


async def test_who_may_not_report_is_told_why(world: World, start: Start, kube: Kubernetes, pods: Pods) -> None:
    await world.create("a", "b")
    leader, standby = start("one"), start("two")
    await world.settled("a", "b")
    await serving(kube, leader, standby)
    ns = world.namespace
    own = {"namespace": ns, "job": "a", "attempt": 1, "stage": "train", "step": 99}
    unbound = pods._kubectl("create", "token", "default", f"--namespace={ns}", "--audience=tuningfork-intake").strip()
    invalid = (401, "the token is invalid, or not of a pod with audience tuningfork-intake")
    cases: list[tuple[str | None, Any, tuple[int, str]]] = [
        (None, own, (401, "a service-account token is needed: Authorization: Bearer ...")),
        ("nonsense", own, invalid),
        (unbound, own, invalid),
        (pods.token("own", audience="https://kubernetes.default.svc"), own, invalid),
        (
            pods.token("other"),
            own,
            (403, f"pod {ns}/other belongs to job b, attempt 1: it cannot report on {ns}/a, attempt 1"),
        ),
        (
            pods.token("own"),
            own | {"attempt": 2},
            (403, f"pod {ns}/own belongs to job a, attempt 1: it cannot report on {ns}/a, attempt 2"),
        ),
        (pods.token("own"), own | {"attempt": "x"}, (400, f"no ProgressReport: attempt: {NO_INTEGER}")),
    ]
    for token, body, expected in cases:
        assert await post(kube, leader, token, body) == expected
        assert await post(kube, standby, token, body) == expected
    assert "step 0" in await world.message("a")
