"""`--update-golden` rewrites the expected plans; read the difference before committing it."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/unit/planning/golden/*/*.yaml")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    # The option exists only where this file was named on the command line, which is where it makes sense.
    return bool(request.config.getoption("--update-golden", default=False))
