"""Certificates of the local cluster, made anew at each fresh start with the openssl command line.

One authority signs everything. That is what kubeadm would split in three; on a machine where one user owns every process
the split would protect nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from devcluster import shell

DAYS = "3650"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """Signs for everything below its folder."""

    folder: Path

    @property
    def pair(self) -> Pair:
        return Pair(self.folder / "ca.crt", self.folder / "ca.key")

    def create(self) -> None:
        self.folder.mkdir(parents=True, mode=0o700)
        arguments = ("req", "-x509", *_NEW_KEY, "-days", DAYS, "-subj", "/CN=tuningfork-dev-ca")
        extensions = ("-addext", "keyUsage=critical,digitalSignature,keyCertSign,cRLSign")
        shell.run(["openssl", *arguments, *extensions, "-keyout", self.pair.key, "-out", self.pair.cert])

    def issue(self, name: str, common_name: str, organization: str = "", alt_names: str = "") -> Pair:
        """A certificate for both ends of TLS; Kubernetes reads user and group from its subject."""
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        request = self.folder / f"{name}.csr"
        subject = (f"/O={organization}" if organization else "") + f"/CN={common_name}"
        shell.run(["openssl", "req", *_NEW_KEY, "-subj", subject, "-keyout", pair.key, "-out", request])
        extensions = self.folder / f"{name}.ext"
        lines = ["keyUsage=critical,digitalSignature", "extendedKeyUsage=serverAuth,clientAuth"]
        extensions.write_text("\n".join([*lines, *([f"subjectAltName={alt_names}"] if alt_names else [])]) + "\n")
        signed_by = ("-CA", str(self.pair.cert), "-CAkey", str(self.pair.key), "-CAcreateserial")
        files = ("-in", str(request), "-extfile", str(extensions), "-out", str(pair.cert))
        shell.run(["openssl", "x509", "-req", "-days", DAYS, *signed_by, *files])
        request.unlink()
        extensions.unlink()
        return pair

    def service_account_keys(self) -> Pair:
        """Not a certificate: the pair that signs and checks service-account tokens."""
        pair = Pair(self.folder / "service-account.pub", self.folder / "service-account.key")
        shell.run(["openssl", "genrsa", "-out", pair.key, "2048"])
        shell.run(["openssl", "rsa", "-in", pair.key, "-pubout", "-out", pair.cert])
        return pair


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
