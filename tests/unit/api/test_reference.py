"""The reference page says what a user looks for."""

import pytest

from tuningfork.api._meta import CommonReason
from tuningfork.api.crds import KINDS
from tuningfork.api.finetunejob import JobReason
from tuningfork.api.jobfile import ExitCode
from tuningfork.api.modelversion import VersionReason
from tuningfork.api.reference import CONDITIONS, build_reference
from tuningfork.api.rollout import RolloutReason

PAGE = build_reference()


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            "| `method.lora.rank` | integer | `8` | >= 1; <= 512 | Rank of the update; trainable parameters grow linearly with it. |",
            id="a number with default and bounds",
        ),
        pytest.param("| `model` | object | required |  | The base model. |", id="a required object"),
        pytest.param(
            "| `data.sources[].format` | string | `Auto` | `Auto`, `Alpaca`, `ShareGPT`, `OpenAIChat` | How its rows are written. |",
            id="a field of a list's entry with its choices",
        ),
        pytest.param("| `metrics` | map of number |  | at most 64 entries |", id="a map"),
        pytest.param("| `suspend` | boolean | `false` |  |", id="a boolean"),
        pytest.param("| `analysis.alpha` | number | `0.05` | > 0; < 0.5 |", id="exclusive bounds"),
        pytest.param(
            "| `prometheus.timeoutSeconds` | number | `5` | > 0; <= 60 | How long a query may take. |", id="a setting"
        ),
        pytest.param("| 143 | `Interrupted` | retried, not counted |", id="an exit status"),
    ],
)
def test_a_row(row: str) -> None:
    assert row in PAGE


@pytest.mark.parametrize(
    "reason", [*JobReason, *VersionReason, *RolloutReason, *CommonReason], ids=lambda r: f"{type(r).__name__}.{r}"
)
def test_every_reason_with_its_sentence(reason: JobReason | VersionReason | RolloutReason) -> None:
    assert f"| `{reason.name}` | {reason.value} |" in PAGE


def test_every_kind_has_conditions() -> None:
    assert CONDITIONS.keys() == {kind.model.__name__ for kind in KINDS}


def test_every_exit_status() -> None:
    assert [f"| {code.value} |" for code in ExitCode if f"| {code.value} |" not in PAGE] == []


def test_markdown_stays_intact() -> None:
    """A bar inside a pattern would end a cell, and <uri> would vanish as an HTML tag."""
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    cells = {line.replace("\\|", "").count("|") - 1 for line in rows}
    assert cells == {2, 3, 5}
    assert "\\<uri>" in PAGE
