"""The invented lake and a ledger with people, each made once, and a console of its own for every test."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from stockpicker_dagster.storage.database import migrate, open_database
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster_tests.console.site import Site, add_everybody, make_site, write_invented_lake
from stockpicker_dagster_tests.trading.conftest import new_ledger  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def invented_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("invented") / "lake"
    write_invented_lake(Lake(root))
    return root


@pytest.fixture(scope="session")
def peopled_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Engine]]:
    """Makes a ledger with a person of every role at each call: hashing their passwords takes longer than most tests."""
    folder = tmp_path_factory.mktemp("peopled")
    template = open_database(f"sqlite:///{folder / 'template.sqlite'}")
    migrate(template)
    add_everybody(template)
    template.dispose()
    numbers, made = itertools.count(), []

    def fresh() -> Engine:
        path = folder / f"ledger{next(numbers)}.sqlite"
        shutil.copyfile(folder / "template.sqlite", path)
        made.append(open_database(f"sqlite:///{path}"))
        event.listen(made[-1], "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
        return made[-1]

    yield fresh
    for engine in made:
        engine.dispose()


@pytest.fixture(scope="module")
def read_site(
    tmp_path_factory: pytest.TempPathFactory, peopled_ledger: Callable[[], Engine], invented_lake: Path
) -> Site:
    """A console that tests only read."""
    return make_site(tmp_path_factory.mktemp("site"), peopled_ledger(), invented_lake)


@pytest.fixture
def site(tmp_path: Path, peopled_ledger: Callable[[], Engine], invented_lake: Path) -> Site:
    """A console that a test may change."""
    return make_site(tmp_path / "home", peopled_ledger(), invented_lake)
