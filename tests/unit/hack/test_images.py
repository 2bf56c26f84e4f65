"""Archives that a node can import, and the fragment that makes a pod run the host's files."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from devcluster import docker_archive, thin


def read(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}


def test_an_archive_names_its_image_and_carries_files_and_folders(tmp_path: Path) -> None:
    image = docker_archive.Image("x/y:z", {"tmp": 0o1777}, {"run": (b"#!", 0o755)}, ["/run"])
    docker_archive.write(image, tmp_path / "image.tar")
    content = read(tmp_path / "image.tar")
    [entry] = json.loads(content["manifest.json"])
    assert entry["RepoTags"] == ["x/y:z"]
    assert json.loads(content[entry["Config"]])["config"] == {"Entrypoint": ["/run"]}
    with tarfile.open(fileobj=io.BytesIO(content["layer.tar"])) as layer:
        assert [(member.name, member.mode, member.isdir()) for member in layer] == [
            ("tmp", 0o1777, True),
            ("run", 0o755, False),
        ]


def test_the_same_image_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        docker_archive.write(thin.image(), tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose virtual environment comes from an interpreter below tmp_path/python/3.11.7."""
    home = tmp_path / "python" / "3.11.7" / "bin"
    home.mkdir(parents=True)
    (home / "python3").touch()
    venv = tmp_path / "checkout" / ".venv"
    venv.mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text(f"home = {home}\nversion = 3.11.7\n")
    return tmp_path / "checkout"


def mounts(fragment: dict[str, list[dict[str, object]]]) -> list[object]:
    return [mount["mountPath"] for mount in fragment["volumeMounts"]]


def test_a_thin_pod_sees_system_interpreter_and_checkout_read_only(checkout: Path) -> None:
    fragment = thin.fragment(checkout)
    assert {"/usr", "/bin", str(checkout), str(checkout.parent / "python/3.11.7")} <= set(mounts(fragment))
    assert all(mount["readOnly"] for mount in fragment["volumeMounts"])
    assert [volume["hostPath"]["path"] for volume in fragment["volumes"]] == mounts(fragment)
    assert {"name": "PATH", "value": f"{checkout}/.venv/bin:/usr/local/bin:/usr/bin:/bin"} in fragment["env"]


def test_under_kind_the_node_sees_the_host_below_a_folder(checkout: Path) -> None:
    fragment = thin.fragment(checkout, "/host")
    assert {"name": "thin-0", "hostPath": {"path": "/host/usr"}} in fragment["volumes"]
    assert {"name": "thin-0", "mountPath": "/usr", "readOnly": True} in fragment["volumeMounts"]


def test_an_interpreter_behind_a_link_is_mounted_at_both_places(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "python" / "3.11").symlink_to(tmp_path / "python" / "3.11.7")
    (checkout / ".venv" / "pyvenv.cfg").write_text(f"home = {tmp_path}/python/3.11/bin\n")
    assert thin.interpreter_prefixes(checkout) == [tmp_path / "python/3.11", tmp_path / "python/3.11.7"]


def test_what_lies_below_usr_is_not_mounted_twice(checkout: Path) -> None:
    (checkout / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    assert [path for path in mounts(thin.fragment(checkout)) if str(path).startswith("/usr")] == ["/usr"]


def test_before_there_is_an_environment_the_running_interpreter_counts(tmp_path: Path) -> None:
    assert thin.interpreter_prefixes(tmp_path)


def test_a_checkout_that_others_cannot_enter_is_named(checkout: Path) -> None:
    assert thin.unreadable(checkout) == []
    checkout.chmod(0o700)
    assert thin.unreadable(checkout) == [checkout]
