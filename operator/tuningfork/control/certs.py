"""The intake's certificate: our own small authority in one Secret, for both replicas and for every job.

The leader makes the Secret and renews what ends; every replica reads it now and then and serves with what is in it. Jobs get the
authority's certificate, which outlives many server certificates, so that a renewal breaks no running training. cert-manager was
rejected: it would be one more thing to install before the first job runs.
"""

import asyncio
import base64
import logging
import ssl
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tuningfork.control.health import Heartbeats
from tuningfork.planning.plan import Manifest
from tuningfork.providers import errors
from tuningfork.providers.kubernetes import Kubernetes, Resource

logger = logging.getLogger(__name__)

SECRETS: Final = Resource("v1", "Secret", "secrets")

AUTHORITY_AGE: Final = timedelta(days=3650)
SERVER_AGE: Final = timedelta(days=365)
RENEW_BEFORE: Final = timedelta(days=60)
"""Both are renewed this long before they end; no training takes as long."""

BACKDATED: Final = timedelta(minutes=5)
"""Clocks of nodes differ; a certificate is valid a little before it was made."""

READ_SECONDS: Final = 60
WAIT_SECONDS: Final = 1
"""Between two looks at the Secret, with and without a certificate."""

HEARTBEAT_SECONDS: Final = READ_SECONDS + 120


class Pair(NamedTuple):
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes

    @property
    def ends(self) -> datetime:
        return x509.load_pem_x509_certificate(self.certificate).not_valid_after_utc


class Bundle(NamedTuple):
    """What the Secret holds."""

    authority: Pair
    server: Pair


def make_authority(name: str, now: datetime) -> Pair:
    """A self-signed authority that may sign servers and nothing below them."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} intake authority {now:%Y-%m-%d}")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        _builder(subject, subject, key.public_key(), now, AUTHORITY_AGE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Pair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def make_server(authority: Pair, names: list[str], now: datetime) -> Pair:
    """A server's certificate for these DNS names."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    signer = serialization.load_pem_private_key(authority.key, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    builder = (
        _builder(subject, issuer.subject, key.public_key(), now, SERVER_AGE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)  # type: ignore[arg-type]
    )
    return Pair(_pem(builder.sign(signer, hashes.SHA256())), _key_pem(key))


def renewed(bundle: Bundle | None, service: str, namespace: str, now: datetime) -> Bundle:
    """The same bundle while it lasts, else one with new certificates where old ones end or are missing."""
    authority = bundle.authority if bundle else None
    if authority is None or authority.ends - now < RENEW_BEFORE:
        authority = make_authority(service, now)
    elif bundle and bundle.server.ends - now >= RENEW_BEFORE:
        return bundle
    names = [server_name(service, namespace), f"{server_name(service, namespace)}.cluster.local"]
    return Bundle(authority, make_server(authority, names, now))


def server_name(service: str, namespace: str) -> str:
    """The name that clients of the intake verify."""
    return f"{service}.{namespace}.svc"


class Certificates:
    """Keeps the server's TLS context equal to the Secret; ``may_make`` is true on the leader."""

    def __init__(
        self,
        kube: Kubernetes,
        service: str,
        namespace: str,
        *,
        now: Callable[[], datetime],
        may_make: Callable[[], bool],
        heartbeats: Heartbeats,
        on_new_authority: Callable[[], None] = lambda: None,
    ) -> None:
        self._kube = kube
        self._service = service
        self._namespace = namespace
        self._now = now
        self._may_make = may_make
        self._heartbeats = heartbeats
        self._on_new_authority = on_new_authority
        self._bundle: Bundle | None = None
        self.loaded = asyncio.Event()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        """Changed in place: new connections use what was loaded last."""
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2

    def ca_pem(self) -> str:
        """What clients verify the intake with; empty until there is one."""
        return self._bundle.authority.certificate.decode() if self._bundle else ""

    async def run(self) -> None:
        """Reads, and on the leader makes and renews, for ever."""
        while True:
            self._heartbeats.beat("certificates", HEARTBEAT_SECONDS)
            try:
                await self.refresh()
            except errors.ProviderError as error:
                logger.warning("intake certificate: %s", error)
            await asyncio.sleep(READ_SECONDS if self.loaded.is_set() else WAIT_SECONDS)

    async def refresh(self) -> None:
        """One look at the Secret."""
        try:
            secret = await self._kube.get(SECRETS, self._namespace, self._name)
        except errors.NotFoundError:
            secret = None
        found = read_secret(secret) if secret else None
        if self._may_make():
            wanted = renewed(found, self._service, self._namespace, self._now())
            if wanted != found:
                await self._write(secret, wanted)
                found = wanted
        if found and found != self._bundle:
            self._load(found)

    @property
    def _name(self) -> str:
        return f"{self._service}-tls"

    async def _write(self, secret: Manifest | None, bundle: Bundle) -> None:
        wanted = build_secret(self._name, self._namespace, bundle)
        if secret is None:
            await self._kube.create(SECRETS, wanted)
        else:
            await self._kube.replace(SECRETS, secret | {"data": wanted["data"]})
        logger.info("the intake has a new certificate, until %s", bundle.server.ends.date())

    def _load(self, bundle: Bundle) -> None:
        with (
            tempfile.NamedTemporaryFile() as file
        ):  # ssl reads certificates from files only; nobody else reads this one
            file.write(bundle.server.key + bundle.server.certificate)
            file.flush()
            self.context.load_cert_chain(file.name)
        before, self._bundle = self._bundle, bundle
        self.loaded.set()
        if before is None or before.authority != bundle.authority:
            self._on_new_authority()


def build_secret(name: str, namespace: str, bundle: Bundle) -> Manifest:
    """The Secret, in the form that Ingress and others know, with the authority beside it."""
    data = {
        "ca.crt": bundle.authority.certificate,
        "ca.key": bundle.authority.key,
        "tls.crt": bundle.server.certificate,
        "tls.key": bundle.server.key,
    }
    return {
        "apiVersion": SECRETS.api_version,
        "kind": SECRETS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def read_secret(secret: Manifest) -> Bundle | None:
    """What `build_secret` wrote; None when something else is there, which is then replaced."""
    data = secret.get("data") or {}
    try:
        ca, ca_key, crt, key = (base64.b64decode(data[name]) for name in ("ca.crt", "ca.key", "tls.crt", "tls.key"))
        bundle = Bundle(Pair(ca, ca_key), Pair(crt, key))
        _ = bundle.authority.ends, bundle.server.ends
    except (KeyError, ValueError):
        return None
    return bundle


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, age: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + age)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
