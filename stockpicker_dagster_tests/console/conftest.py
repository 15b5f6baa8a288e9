"""The invented lake, made once, and a console of its own for every test that asks for one."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from stockpicker_dagster_tests.console.site import Site, make_site, write_invented_lake
from stockpicker_dagster_tests.trading.conftest import new_ledger  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def invented_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("invented") / "lake"
    write_invented_lake(root)
    return root


@pytest.fixture(scope="module")
def read_site(tmp_path_factory: pytest.TempPathFactory, new_ledger: Callable[[], Engine], invented_lake: Path) -> Site:  # noqa: F811
    """A console that tests only read."""
    return make_site(tmp_path_factory.mktemp("site"), new_ledger(), invented_lake)


@pytest.fixture
def site(tmp_path: Path, new_ledger: Callable[[], Engine], invented_lake: Path) -> Site:  # noqa: F811
    """A console that a test may change."""
    return make_site(tmp_path / "home", new_ledger(), invented_lake)
