"""What docs/install.md tells a user to write works as written."""

import re

import yaml

from chart import ROOT, render

PAGE = (ROOT / "docs" / "install.md").read_text()


def test_the_example_values_install() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    secret = next(o for o in render(yaml.safe_load(example)) if o["kind"] == "Secret")
    assert secret["stringData"] == {"AWS_ACCESS_KEY_ID": "operator", "AWS_SECRET_ACCESS_KEY": "change-me"}


def test_every_object_it_names_is_in_the_chart() -> None:
    names = {o["metadata"]["name"] for o in render({"argocd": {"enabled": True}})}
    named = set(re.findall(r"(?:deployment/|configmap |`)(tuningfork(?:-[a-z]+)?)[\s`]", PAGE))
    assert named - names <= {"tuningfork-system"}
    assert {"tuningfork", "tuningfork-argocd", "tuningfork-serving"} <= named


def test_every_file_it_names_is_there() -> None:
    paths = re.findall(r"\]\(([^)#]+)", PAGE)
    assert [path for path in paths if not (ROOT / "docs" / path).exists()] == []
    assert (ROOT / "charts/tuningfork/files/dashboard.json").exists()
