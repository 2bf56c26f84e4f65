"""The two images a node must have before its first pod: pause, and the thin one. Made here, since no registry is asked."""

from __future__ import annotations

from pathlib import Path

from devcluster import debian, docker_archive, gobuild, settings, shell, thin
from devcluster.local.node import SOCKET

PAUSE_SOURCE = """\
// The process that holds a pod's namespaces: it waits for its end and reaps orphans meanwhile.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
"""
PAUSE_NAME = "pause-1"
"""With a number, because the cache is by name: a change of the source needs the next one."""


def pause() -> docker_archive.Image:
    program = gobuild.build_program(PAUSE_NAME, PAUSE_SOURCE).read_bytes()
    return docker_archive.Image(settings.PAUSE_IMAGE, files={"pause": (program, 0o755)}, entrypoint=["/pause"])


def load_own(folder: Path) -> None:
    for name, image in (("pause", pause()), ("thin", thin.image())):
        archive = folder / f"{name}.tar"
        docker_archive.write(image, archive)
        load(archive)


def load(archive: Path) -> None:
    """Into the namespace that the kubelet looks in."""
    shell.run([debian.program("ctr"), f"--address={SOCKET}", "--namespace=k8s.io", "images", "import", archive])
