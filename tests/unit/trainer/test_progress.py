"""Progress reaches the intake when it can, and costs nothing when it cannot."""

import datetime
import ipaddress
import json
import logging
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.tiny_model import Manifest
from support.trainer_calls import Trainer
from tuningfork.api.jobfile import Intake, ProgressReport
from tuningfork_trainer import progress as module
from tuningfork_trainer.progress import Progress, Speed


@dataclass
class Received:
    """What an intake got."""

    port: int = 0
    bodies: list[Manifest] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)

    def eventually(self, check: Callable[["Received"], bool], within: float = 10) -> bool:
        end = time.monotonic() + within
        while time.monotonic() < end and not check(self):
            time.sleep(0.02)
        return check(self)


@contextmanager
def intake(context: ssl.SSLContext | None = None, status: int = 200, delay: float = 0) -> Iterator[Received]:
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.tokens.append(self.headers.get("Authorization"))
            received.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            time.sleep(delay)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    received.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()


def make_certificate(folder: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1 in folder/ca.pem, and a server context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "intake")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(private + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


def test_a_report_arrives_over_tls_with_the_token_of_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.05)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    token = tmp_path / "token"
    token.write_text("first\n")
    with intake(make_certificate(tmp_path)) as received:
        progress = Progress(
            "ml",
            "colours",
            2,
            Intake(
                url=f"https://127.0.0.1:{received.port}/v1/progress",
                ca_file=str(tmp_path / "ca.pem"),
                token_file=str(token),
            ),
        )
        progress.update(stage="train", step=3, total_steps=9, loss=1.5, tokens_per_second=20.0, eta_seconds=6)
        assert received.eventually(lambda r: len(r.bodies) == 1)
        token.write_text("second\n")
        progress.update(step=4, loss=math.nan)
        progress.close()
    first = {
        "namespace": "ml",
        "job": "colours",
        "attempt": 2,
        "stage": "train",
        "step": 3,
        "totalSteps": 9,
        "loss": 1.5,
        "tokensPerSecond": 20.0,
        "etaSeconds": 6,
    }
    second = {key: value for key, value in first.items() if key != "loss"} | {"step": 4}
    assert received.bodies == [first, second]
    assert received.tokens == ["Bearer first", "Bearer second"]
    ProgressReport.model_validate(second)


def test_only_the_latest_report_is_posted_and_not_more_often_than_once_an_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.3)
    with intake() as received:
        progress = Progress("ml", "a", 1, Intake(url=f"http://127.0.0.1:{received.port}/v1/progress"))
        progress.update(step=0)
        assert received.eventually(lambda r: len(r.bodies) == 1)
        for step in range(1, 500):
            progress.update(step=step)
        progress.close()
    assert [body["step"] for body in received.bodies] == [0, 499]


@pytest.mark.parametrize("kind", ["closed", "hanging", "refusing"])
def test_a_bad_intake_costs_no_time_and_one_line(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    caplog.set_level(logging.WARNING)
    with intake(status=403) as received, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = {"closed": 1, "hanging": silent.getsockname()[1], "refusing": received.port}[kind]
        progress = Progress("ml", "a", 1, Intake(url=f"http://127.0.0.1:{port}/v1/progress"))
        began = time.monotonic()
        for step in range(200):
            progress.update(step=step)
        assert time.monotonic() - began < 0.1
        progress.close()
        assert time.monotonic() - began < 2
    assert len([record for record in caplog.records if "training goes on" in record.message]) == 1


def test_a_run_reports_its_stages_and_steps(
    trainer: Trainer, job: Callable[..., Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    with intake() as received:
        run = {
            "attempt": 3,
            "output": (tmp_path / "out").as_uri(),
            "intake": {"url": f"http://127.0.0.1:{received.port}/v1/progress"},
        }
        assert trainer(job(run=run)).code == 0
    assert {body["attempt"] for body in received.bodies} == {3}
    steps = [body["step"] for body in received.bodies]
    assert steps == sorted(steps)
    last = received.bodies[-1]
    assert (last["stage"], last["step"], last["totalSteps"]) == ("export", 12, 12)
    assert last["loss"] > 0
    assert last["tokensPerSecond"] > 0


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        pytest.param([], (None, None), id="nothing yet"),
        pytest.param([(0, 0, 10.0)], (None, None), id="only the start"),
        pytest.param([(0, 0, 10.0), (1, 50, 12.0)], (25.0, 18), id="one step"),
        pytest.param([(5, 500, 10.0), (6, 600, 14.0)], (25.0, 16), id="after a resume"),
        pytest.param([(1, 1, 10.0), (1, 1, 10.0)], (None, None), id="no time has passed"),
        pytest.param([(0, 0, 0.0), (1, 1, 1000.0), (2, 101, 1001.0), (3, 201, 1002.0)], (100.0, 7), id="a slow start is forgotten"),
    ],
)  # fmt: skip
def test_speed(marks: list[tuple[int, int, float]], expected: tuple[float | None, int | None]) -> None:
    speed = Speed(window=3)
    for step, tokens, now in marks:
        speed.mark(step, tokens, now)
    assert speed.measure(total_steps=10) == expected
