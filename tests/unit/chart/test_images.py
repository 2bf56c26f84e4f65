"""The images: what their Dockerfiles promise, and which commands hack/images runs, against stand-ins that record them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from chart import CHART, ROOT
from image_build import FOLDERS, dockerfile, image_name

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


def final_stage(part: str) -> str:
    return Path(dockerfile(part)).read_text().split("\nFROM ")[-1]


@pytest.mark.parametrize("part", FOLDERS)
def test_pinned_with_hashes(part: str) -> None:
    text = Path(dockerfile(part)).read_text()
    installed = re.findall(r"--require-hashes -r requirements/(\w+)\.txt", text)
    assert installed == ["build", part]
    for name in installed:
        pins = (ROOT / "requirements" / f"{name}.txt").read_text()
        assert pins.count("==") <= pins.count("--hash=sha256:")


@pytest.mark.parametrize("part", FOLDERS)
def test_the_final_stage_runs_as_a_user_and_installs_nothing(part: str) -> None:
    stage = final_stage(part)
    assert "\nUSER 1000:1000\n" in stage
    assert re.findall(r"apt-get|pip|uv |hatch", stage) == []
    assert re.findall(r"^COPY (.*)$", stage, re.MULTILINE) == ["--from=build /opt/tuningfork /opt/tuningfork"]


@pytest.mark.parametrize("part", FOLDERS)
def test_the_program_of_an_image_is_one_of_ours(part: str) -> None:
    scripts = re.search(r"\[project.scripts\]\n(.*?)\n\n", (ROOT / "pyproject.toml").read_text(), re.DOTALL)
    assert scripts
    (program,) = re.findall(r'ENTRYPOINT \["([\w-]+)"\]', final_stage(part))
    assert f"\n{program} = " in "\n" + scripts[1]


def test_names_are_those_of_the_charts_values() -> None:
    named = {
        "operator": VALUES["operator"]["image"],
        **{p: VALUES["settings"]["images"][p] for p in ("trainer", "serving")},
    }
    assert {part: image_name(part) for part in FOLDERS} == named


def run_with(
    folder: Path, programs: dict[str, str], *arguments: str
) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """hack/images with stand-ins for programs (their shell code); the commands they were called with."""
    log = folder / "calls"
    log.touch()
    for name, code in programs.items():
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n{code}\n')
        program.chmod(0o755)
    done = subprocess.run(
        [sys.executable, str(ROOT / "hack" / "images"), *arguments],
        env={**os.environ, "PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return log.read_text().splitlines(), done


def test_docker_builds_where_it_answers(tmp_path: Path) -> None:
    calls, done = run_with(tmp_path, {"docker": ""}, "operator", "--no-load")
    assert done.returncode == 0, done.stderr
    assert calls == [
        "docker version",
        f"docker build --build-arg BASE=python:3.12-slim-bookworm -t tuningfork.dev/operator:0.1.0 -f {ROOT}/operator/Dockerfile {ROOT}",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="buildah is only tried as root")
def test_buildah_builds_elsewhere_on_a_base_made_here(tmp_path: Path) -> None:
    buildah = 'case "$1" in inspect|pull) exit 1;; from) echo working-container;; esac'
    calls, done = run_with(
        tmp_path, {"docker": "exit 1", "buildah": buildah, "debootstrap": 'mkdir -p "$4"'}, "serving", "--no-load"
    )
    assert done.returncode == 0, done.stderr
    assert [call.split()[:2] for call in calls] == [
        ["docker", "version"],
        ["buildah", "inspect"],
        ["buildah", "pull"],
        ["debootstrap", "--variant=minbase"],
        ["buildah", "from"],
        ["buildah", "add"],
        ["buildah", "config"],
        ["buildah", "commit"],
        ["buildah", "bud"],
    ]
    assert "--build-arg BASE=localhost/tuningfork-base:bookworm -t tuningfork.dev/serving:0.1.0" in calls[-1]


def test_a_build_that_fails_says_why(tmp_path: Path) -> None:
    code = 'test "$1" = build || exit 0; echo "no space left on device" >&2; exit 1'
    _, done = run_with(tmp_path, {"docker": code}, "operator", "--no-load")
    assert done.returncode == 1
    assert "no space left on device" in done.stderr
    assert "Traceback" not in done.stderr
