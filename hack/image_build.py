"""Builds the project's images from their Dockerfiles, with docker where it answers and buildah elsewhere.

Where no registry has the base image, Debian's own packages make one: debootstrap into a folder, committed as an image. Both
are the same Debian 12; only the Python differs (3.12 or 3.11), and the pinned requirements fit both.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from pathlib import Path

from devcluster import debian, providers, shell
from devcluster.console import ClusterError, say, step

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"operator": "operator", "trainer": "trainer-image", "serving": "serving-image"}
"""Where the Dockerfile of each image lies; smallest first."""
MINUTES = {"operator": 0.5, "trainer": 2.5, "serving": 2.5}
"""What a build takes on two cores; only shown."""

REGISTRY_BASE = "python:3.12-slim-bookworm"
LOCAL_BASE = "localhost/tuningfork-base:bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
CERTIFICATES = "/etc/ssl/certs"
PULL_SECONDS = 60
"""A registry that cannot be reached may take minutes to say so."""

BUILDAH = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}
"""chroot: neither a daemon nor user namespaces are needed, so it also works inside a container."""


def image_name(part: str) -> str:
    """As in the chart's values."""
    match = re.search(r"^appVersion: (\S+)$", (ROOT / "charts/tuningfork/Chart.yaml").read_text(), re.MULTILINE)
    assert match, "Chart.yaml has no appVersion"
    return f"tuningfork.dev/{part}:{match[1]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="hack/images", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="IMAGE", choices=[*FOLDERS, []], help=", ".join(FOLDERS))
    parser.add_argument("--no-load", action="store_true", help="leave the cluster alone")
    options = parser.parse_args()
    try:
        build_all(options.parts or list(FOLDERS), load=not options.no_load)
    except ClusterError as error:
        say(f"hack/images: {error}")
        return 1
    return 0


def build_all(parts: list[str], *, load: bool) -> None:
    docker = shell.attempt(["docker", "version"], timeout=10).returncode == 0
    base = REGISTRY_BASE if docker else buildah_base()
    for part in parts:
        with step(f"building {image_name(part)} (about {MINUTES[part]:g} min)"):
            (docker_build if docker else buildah_build)(part, base)
        if load:
            with step(f"loading {image_name(part)} into the cluster"):
                load_image(part, docker=docker)


def docker_build(part: str, base: str) -> None:
    argv = ["docker", "build", "--build-arg", f"BASE={base}", "-t", image_name(part), "-f", dockerfile(part), str(ROOT)]
    shell.run(argv)


def buildah_build(part: str, base: str) -> None:
    """The machine's certificates are mounted: what it trusts is also what its registries need."""
    shell.run(
        ["buildah", "bud", "--no-cache", "--force-rm", "--network", "host", "--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro",
         "--build-arg", f"BASE={base}", "-t", image_name(part), "-f", dockerfile(part), str(ROOT)],
        env=BUILDAH,
    )  # fmt: skip


def dockerfile(part: str) -> str:
    return str(ROOT / FOLDERS[part] / "Dockerfile")


def load_image(part: str, *, docker: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / f"{part}.tar"
        if docker:
            shell.run(["docker", "save", "-o", str(archive), image_name(part)])
        else:
            shell.run(
                ["buildah", "push", image_name(part), f"docker-archive:{archive}:{image_name(part)}"], env=BUILDAH
            )
        providers.select().load_image(archive)


def buildah_base() -> str:
    """The registry's base image, or else one that is made here once."""
    if os.geteuid() != 0:
        raise ClusterError("building images needs docker, or root for buildah. Start docker, or run this as root.")
    debian.ensure({"buildah": "buildah", "debootstrap": "debootstrap"})
    if shell.attempt(["buildah", "inspect", "--type=image", LOCAL_BASE], env=BUILDAH).returncode == 0:
        return LOCAL_BASE
    with step(f"asking for {REGISTRY_BASE}"):
        pulled = shell.attempt(["buildah", "pull", REGISTRY_BASE], env=BUILDAH, timeout=PULL_SECONDS)
    if pulled.returncode == 0:
        return REGISTRY_BASE
    with step("no registry has it: making a base image with debootstrap (about 1.5 min)"):
        _bootstrap()
    return LOCAL_BASE


def _bootstrap() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        shell.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)])
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
            shell.run(["rm", "-rf", str(root / waste)])
        container = shell.run(["buildah", "from", "scratch"], env=BUILDAH).strip()
        shell.run(["buildah", "add", "--quiet", container, str(root), "/"], env=BUILDAH)
        shell.run(
            ["buildah", "config", "--env", f"PATH={debian.SYSTEM_PATH}", "--cmd", "python3", container],
            env=BUILDAH,
        )
        shell.run(["buildah", "commit", "--quiet", "--rm", container, LOCAL_BASE], env=BUILDAH)
