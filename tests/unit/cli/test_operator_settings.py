"""What is wrong with the settings is said at start, by name."""

from pathlib import Path

import click
import pytest

from tuningfork.cli.operator import read_settings

GOOD = "images: {trainer: t:1, serving: s:1}\n"


def test_a_file_with_the_images_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(GOOD)
    assert read_settings(file).images.trainer == "t:1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(None, "No such file or directory: give a readable file with --settings", id="no file"),
        pytest.param("", "images: Field required, got {}", id="an empty file"),
        pytest.param("a: [", " is not YAML: while parsing a flow node", id="no YAML"),
        pytest.param(
            "- a", "the file: Input should be a valid dictionary or instance of Settings, got ['a']", id="a list"
        ),
        pytest.param(
            GOOD + "workers: 0",
            "workers: Input should be greater than or equal to 1, got 0",
            id="a value out of bounds",
        ),
        pytest.param(GOOD + "wrokers: 3", "wrokers: Extra inputs are not permitted, got 3", id="a misspelt name"),
        pytest.param(
            GOOD + "s3: {endpoint: [x]}", "s3.endpoint: Input should be a valid string, got ['x']", id="deeper down"
        ),
    ],
)
def test_what_is_wrong_is_named(text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(click.ClickException) as error:
        read_settings(file)
    assert error.value.message.startswith(str(file))
    assert said in error.value.message
