"""The deployment: what the environment names, opened once, and nothing that a run's configuration can redirect."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Engine, inspect

from stockpicker_dagster.storage import deployment as deployment_file
from stockpicker_dagster.storage.database import migrate
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.io_manager import LakeIOManager

RESOURCES = {"deployment": Deployment(), "io_manager": LakeIOManager()}


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))


@pytest.mark.parametrize("name", list(RESOURCES))
@pytest.mark.parametrize("field", ["lake", "database", "database_url", "root", "now"])
def test_no_run_can_redirect_lake_database_or_clock(name: str, field: str) -> None:
    assert type(RESOURCES[name]).model_fields == {}
    reached: list[str] = []

    @dg.op(required_resource_keys={name})
    def look() -> None:
        reached.append(name)

    @dg.job(resource_defs=RESOURCES)
    def looking() -> None:
        look()

    assert looking.execute_in_process().success
    with pytest.raises(dg.DagsterInvalidConfigError, match=f'unexpected config entry "{field}"'):
        looking.execute_in_process(run_config={"resources": {name: {"config": {field: "/elsewhere"}}}})
    assert reached == [name]


def test_the_environment_of_the_moment_names_lake_and_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = Deployment()
    assert deployment.lake.root == tmp_path / "lake"
    assert deployment.database.url.database == str(tmp_path / "stockpicker.sqlite")
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "moved"))
    assert deployment.lake.root == tmp_path / "moved" / "lake"
    monkeypatch.setenv("STOCKPICKER_DATABASE_URL", f"sqlite:///{tmp_path / 'named.sqlite'}")
    assert deployment.database.url.database == str(tmp_path / "named.sqlite")


def test_a_database_is_opened_and_migrated_once_for_all_deployments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated: list[Engine] = []

    def counted(engine: Engine) -> None:
        migrated.append(engine)
        migrate(engine)

    monkeypatch.setattr(deployment_file, "migrate", counted)
    first, again = Deployment().database, Deployment().database
    assert first is again
    assert migrated == [first]
    assert {"accounts", "proposals", "halts"} <= set(inspect(first).get_table_names())
    monkeypatch.setenv("STOCKPICKER_DATABASE_URL", f"sqlite:///{tmp_path / 'other.sqlite'}")
    other = Deployment().database
    assert migrated == [first, other]
    assert "accounts" in inspect(other).get_table_names()


def test_the_clock_is_the_current_moment_in_utc() -> None:
    before, now, after = datetime.now(UTC), Deployment().now(), datetime.now(UTC)
    assert before <= now <= after
    assert now.utcoffset() == timedelta(0)
