"""It runs on a fresh machine: nothing but the standard library, and no place that only one machine has."""

import ast
import re
import sys
from pathlib import Path

import pytest

HACK = Path(__file__).resolve().parents[3] / "hack"
SOURCES = sorted([HACK / "cluster", *(HACK / "devcluster").rglob("*.py")])


@pytest.mark.parametrize("source", [pytest.param(path, id=str(path.relative_to(HACK))) for path in SOURCES])
def test_only_the_standard_library_is_imported(source: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    assert names <= {*sys.stdlib_module_names, "devcluster"}


@pytest.mark.parametrize("source", [pytest.param(path, id=str(path.relative_to(HACK))) for path in SOURCES])
def test_no_proxy_index_or_home_of_one_machine_is_named(source: Path) -> None:
    assert not re.findall(
        r"GOPROXY=|--index-url|/root/\S+|/home/\S+|https?://(?!kubernetes\.)[a-z]", source.read_text()
    )
