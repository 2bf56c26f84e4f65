"""Thin images, for the inner loop: a pod runs this machine's own files, so that a change needs no image build.

The image is an empty root. The pod mounts the operating system's folders, the checkout with its virtual environment and
the interpreter that this environment was made from, all read-only, each at the path it has on the host: a virtual
environment holds absolute paths. `fragment` is what has to be merged into a pod for that.

Pods run as uid 1000. A checkout below /root works although /root is closed to others, because the mount starts at the
checkout and the folders above it are made by the container runtime. The checkout itself must be readable by others,
though; `unreadable` says which folder is not.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

from devcluster import docker_archive, settings
from devcluster.kube import Json

SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ssl", "/etc/ld.so.cache")
"""What a program needs of Debian; on merged-/usr systems /lib and /bin are links, which a mount follows."""

UID = 1000
PASSWD = f"root:x:0:0:root:/root:/usr/sbin/nologin\ntuningfork:x:{UID}:{UID}::/tmp:/usr/sbin/nologin\n"
"""torch and others look up the name of the user they run as, and fail for one that has none."""
GROUP = f"root:x:0:\ntuningfork:x:{UID}:\n"

OTHERS_MAY_ENTER = stat.S_IROTH | stat.S_IXOTH


def image() -> docker_archive.Image:
    folders = ("usr", "lib", "lib64", "bin", "sbin", "etc", "etc/ssl", "proc", "sys", "dev", "run", "var", "root")
    return docker_archive.Image(
        name=settings.THIN_IMAGE,
        directories={**dict.fromkeys(folders, 0o755), "tmp": 0o1777},
        files={
            "etc/passwd": (PASSWD.encode(), 0o644),
            "etc/group": (GROUP.encode(), 0o644),
            "etc/nsswitch.conf": (b"passwd: files\ngroup: files\nhosts: files dns\n", 0o644),
        },
    )


def fragment(checkout: Path, host_root: str = "") -> Json:
    """Volumes, mounts and environment for a container of a thin pod.

    `host_root` is where the node sees this machine's root folder, which is not the same under kind.
    """
    paths = [Path(path) for path in SYSTEM if Path(path).exists()]
    paths += [path for path in (*interpreter_prefixes(checkout), *_venv(checkout), checkout) if not _below(path, paths)]
    volumes, mounts = [], []
    for number, path in enumerate(dict.fromkeys(paths)):
        name = f"thin-{number}"
        volumes.append({"name": name, "hostPath": {"path": f"{host_root}{path}"}})
        mounts.append({"name": name, "mountPath": str(path), "readOnly": True})
    return {
        "image": settings.THIN_IMAGE,
        "volumes": volumes,
        "volumeMounts": mounts,
        "env": [
            {"name": "PATH", "value": f"{checkout}/.venv/bin:/usr/local/bin:/usr/bin:/bin"},
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - in the pod
            {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
        ],
    }


def interpreter_prefixes(checkout: Path) -> list[Path]:
    """The folders that hold the interpreter behind .venv; before there is one, this script's own.

    Two, where the environment names it through a link (uv keeps a link a minor version): the link's place and its target.
    """
    config = checkout / ".venv" / "pyvenv.cfg"
    home = Path(sys.base_prefix) / "bin"
    if config.exists():
        for line in config.read_text().splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "home":
                home = Path(value.strip())
    # pyenv's shims and some systems' /usr/bin/python are links as well: where the real file lies counts.
    real = [path.resolve().parent.parent for path in (home / "python3", home / "python") if path.exists()]
    return list(dict.fromkeys([home.parent, home.parent.resolve(), *real]))


def _venv(checkout: Path) -> list[Path]:
    """A .venv that is a link leads out of the checkout, and has to be mounted where it leads to."""
    venv = checkout / ".venv"
    return [venv.resolve()] if venv.is_symlink() else []


def _below(path: Path, mounted: list[Path]) -> bool:
    return any(path.is_relative_to(other) for other in mounted)


def unreadable(checkout: Path) -> list[Path]:
    """Mounted folders that uid 1000 could not enter."""
    candidates = [checkout, *_venv(checkout), checkout / ".venv", *interpreter_prefixes(checkout)]
    return [path for path in candidates if path.exists() and path.stat().st_mode & OTHERS_MAY_ENTER != OTHERS_MAY_ENTER]
