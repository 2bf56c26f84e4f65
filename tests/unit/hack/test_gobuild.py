"""Builds are whole or absent, happen once, and name what they build. The `go` here is a stand-in that records its calls."""

import os
import sys
import threading
from pathlib import Path

import pytest

from devcluster import gobuild, tools
from devcluster.console import ClusterError
from devcluster.tools import Tool

GO = """#!{python}
import os, pathlib, sys, time
with open({calls!r}, "a") as calls:
    print(*sys.argv[1:], file=calls)
if sys.argv[1] == "version":
    print("go version go1.26.8 linux/amd64")
elif pathlib.Path({broken!r}).exists():
    sys.exit("missing go.sum entry")
elif sys.argv[1] == "install":
    time.sleep(0.3)
    for package in (word for word in sys.argv if "@" in word):
        pathlib.Path(os.environ["GOBIN"], package.partition("@")[0].rpartition("/")[2]).touch()
elif sys.argv[1] == "build":
    out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
    out.touch() if not out.is_dir() else [(out / p.rpartition("/")[2]).touch() for p in sys.argv if p.startswith("k8s.io")]
"""
TOOL = Tool("gadget", "v1.2.3", "example.com/gadget", ("example.com/gadget/cmd/gadget",), 1, "gadget")


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the stand-in's `calls`; a file `broken` in it makes every build fail."""
    program = tmp_path / "bin" / "go"
    program.parent.mkdir()
    program.write_text(GO.format(python=sys.executable, calls=str(tmp_path / "calls"), broken=str(tmp_path / "broken")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def builds(go: Path) -> list[str]:
    return [line for line in (go / "calls").read_text().splitlines() if not line.startswith("version")]


def test_a_tool_is_built_once_and_then_found(go: Path) -> None:
    first = gobuild.binary(TOOL)
    assert first == go / "cache/tuningfork/bin/gadget-v1.2.3/gadget"
    assert first.exists()
    assert gobuild.binary(TOOL) == first
    assert builds(go) == ["install -trimpath -ldflags -s -w -tags  example.com/gadget/cmd/gadget@v1.2.3"]


def test_two_at_once_build_once(go: Path) -> None:
    threads = [threading.Thread(target=gobuild.ensure, args=(TOOL,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds(go)) == 1


def test_a_build_that_fails_says_why_leaves_nothing_and_is_tried_again(go: Path) -> None:
    (go / "broken").touch()
    with pytest.raises(ClusterError, match=r"missing go\.sum entry"):
        gobuild.ensure(TOOL)
    assert list((go / "cache/tuningfork/bin").iterdir()) == []
    (go / "broken").unlink()
    assert gobuild.binary(TOOL).exists()


def test_what_a_killed_build_left_is_removed_by_the_next(go: Path) -> None:
    abandoned = go / "cache/tuningfork/bin/.gadget-v1.2.3-abc"
    abandoned.mkdir(parents=True)
    gobuild.ensure(TOOL)
    assert not abandoned.exists()


def test_kubernetes_is_built_from_a_go_mod_of_its_own(go: Path) -> None:
    place = gobuild.ensure(tools.KUBERNETES)
    assert sorted(path.name for path in place.iterdir()) == sorted(tools.KUBERNETES.binaries)
    assert [line.split()[0] for line in builds(go)] == ["mod", "build"]


def test_go_mod_repeats_the_replace_lines_and_stamps_the_version() -> None:
    text = gobuild.go_mod(tools.KUBERNETES)
    assert "require k8s.io/kubernetes v1.34.4\n" in text
    assert "\tk8s.io/client-go => k8s.io/client-go v0.34.4\n" in text
    assert text.count("=>") == 31
    assert "version.gitVersion=v1.34.4 -X k8s.io/component-base/version.gitMajor=1" in tools.KUBERNETES.ldflags


def test_tools_go_is_never_compiled_but_names_every_package() -> None:
    assert gobuild.tools_go(TOOL) == (
        '//go:build tools\n\npackage tools\n\nimport (\n\t_ "example.com/gadget/cmd/gadget"\n)\n'
    )


def test_binaries_are_called_what_people_call_them() -> None:
    assert {name: tool.binaries for name, tool in tools.BY_NAME.items() if name != "kubernetes"} == {
        name: (name,) for name in tools.BY_NAME if name != "kubernetes"
    }


@pytest.mark.parametrize(
    ("line", "recent"),
    [
        pytest.param("go version go1.26.8 linux/amd64", True, id="current"),
        pytest.param("go version go1.19.8 linux/amd64", False, id="Debian 12's own"),
        pytest.param("", False, id="says nothing"),
    ],
)
def test_an_old_go_is_not_used(line: str, recent: bool) -> None:
    assert gobuild.is_recent(line) is recent
