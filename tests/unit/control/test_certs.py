"""The intake's certificate: made, verified, renewed in time, replaced where it is broken."""

import asyncio
import base64
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from support.memory_api import MemoryApi
from tuningfork.control.certs import (
    Bundle,
    Certificates,
    Pair,
    build_secret,
    make_authority,
    make_server,
    read_secret,
    renewed,
    server_name,
)
from tuningfork.control.health import Heartbeats

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME = "tuningfork.system.svc"
PATH = "/api/v1/namespaces/system/secrets/tuningfork-tls"


def days(count: int) -> timedelta:
    return timedelta(days=count)


def bundle(now: datetime = NOW) -> Bundle:
    return renewed(None, "tuningfork", "system", now)


@pytest.mark.parametrize(
    ("after", "authority_kept", "server_kept"),
    [
        pytest.param(days(0), True, True, id="new"),
        pytest.param(days(304), True, True, id="long before its end"),
        pytest.param(days(306), True, False, id="the server's ends within 60 days"),
        pytest.param(days(3000), True, False, id="the server's has ended"),
        pytest.param(days(3600), False, False, id="the authority ends within 60 days"),
    ],
)
def test_when_what_is_renewed(after: timedelta, authority_kept: bool, server_kept: bool) -> None:
    before = bundle()
    now = renewed(before, "tuningfork", "system", NOW + after)
    assert (now.authority == before.authority, now.server == before.server) == (authority_kept, server_kept)


def test_a_secret_reads_back_as_what_was_written() -> None:
    made = bundle()
    assert read_secret(build_secret("tuningfork-tls", "system", made)) == made


@pytest.mark.parametrize("key", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
def test_a_secret_that_lacks_something_is_no_certificate(key: str) -> None:
    secret = build_secret("tuningfork-tls", "system", bundle())
    del secret["data"][key]
    assert read_secret(secret) is None


def test_a_secret_with_something_else_is_no_certificate() -> None:
    secret = build_secret("tuningfork-tls", "system", bundle())
    secret["data"]["tls.crt"] = base64.b64encode(b"not a certificate").decode()
    assert read_secret(secret) is None


def handshake(server: ssl.SSLContext, ca_pem: str, name: str) -> None:
    """A TLS handshake in memory; raises what the client would see."""
    client = ssl.create_default_context(cadata=ca_pem)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


class Replica:
    def __init__(self, api: MemoryApi, *, leads: bool) -> None:
        self.now = datetime.now(UTC)
        self.changes = 0
        self.certificates = Certificates(
            api.client(),
            "tuningfork",
            "system",
            now=lambda: self.now,
            may_make=lambda: leads,
            heartbeats=Heartbeats(asyncio.get_running_loop().time),
            on_new_authority=self._changed,
        )

    def _changed(self) -> None:
        self.changes += 1


async def test_the_leader_makes_it_and_both_serve_with_it() -> None:
    api = MemoryApi()
    leader, standby = Replica(api, leads=True), Replica(api, leads=False)
    await standby.certificates.refresh()
    assert standby.certificates.ca_pem() == ""
    await leader.certificates.refresh()
    await standby.certificates.refresh()
    for replica in (leader, standby):
        handshake(replica.certificates.context, leader.certificates.ca_pem(), server_name("tuningfork", "system"))
    assert api.writes == [("POST", PATH.rpartition("/")[0])]


async def test_a_client_that_asks_for_another_name_is_not_served() -> None:
    leader = Replica(MemoryApi(), leads=True)
    await leader.certificates.refresh()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(leader.certificates.context, leader.certificates.ca_pem(), "tuningfork.another.svc")


async def test_a_renewed_certificate_is_served_by_both_and_jobs_keep_the_authority() -> None:
    api = MemoryApi()
    leader, standby = Replica(api, leads=True), Replica(api, leads=False)
    old = renewed(None, "tuningfork", "system", leader.now - days(310))
    api.objects[PATH] = build_secret("tuningfork-tls", "system", old)
    api.objects[PATH]["metadata"]["resourceVersion"] = "7"
    await standby.certificates.refresh()
    await leader.certificates.refresh()
    await standby.certificates.refresh()
    for replica in (leader, standby):
        assert replica.certificates.ca_pem() == old.authority.certificate.decode()
        assert replica.changes == 1, "once, when it was first known"
        handshake(replica.certificates.context, old.authority.certificate.decode(), NAME)
    assert api.writes == [("PUT", PATH)]
    found = read_secret(api.objects[PATH])
    assert found
    assert found.server != old.server


async def test_waiting_for_a_certificate_ends_when_there_is_one() -> None:
    api = MemoryApi()
    standby = Replica(api, leads=False)
    running = asyncio.create_task(standby.certificates.run())
    await asyncio.sleep(30)
    assert not standby.certificates.loaded.is_set()
    await Replica(api, leads=True).certificates.refresh()
    await asyncio.wait_for(standby.certificates.loaded.wait(), 2)
    running.cancel()


def test_an_authority_may_sign_servers_and_a_server_nothing() -> None:
    authority = make_authority("x", NOW)
    server = make_server(authority, [NAME], NOW)
    assert isinstance(server, Pair)
    assert server.ends == NOW + days(365)
    assert authority.ends == NOW + days(3650)
