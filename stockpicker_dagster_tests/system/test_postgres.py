"""Dagster's storage and our database on a real PostgreSQL, and secrets that stay where they were put."""

from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import make_url

from stockpicker_dagster.definitions import bind
from stockpicker_dagster.defs.cold_start.definitions import definitions
from stockpicker_dagster.home import PROJECT_ROOT, prepare_home
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.database import create_database
from stockpicker_dagster_tests.aws.buckets import objects
from stockpicker_dagster_tests.aws.faulty_proxy import FaultyProxy

CANARY = "invented-secret-for-tests"
"""AWS's secret key in the tests; the databases' password is a second canary."""


@pytest.fixture
def urls(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Databases of Dagster's and of ours on the server, named by the environment."""
    named = {name: postgres_url.rsplit("/", 1)[0] + f"/{name}" for name in ("of_dagster", "of_ours")}
    create_database(named["of_dagster"])
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STOCKPICKER_DATABASE_URL", named["of_ours"])
    monkeypatch.setenv("STOCKPICKER_DAGSTER_DATABASE_URL", named["of_dagster"].replace("+psycopg", ""))
    for name in ("DAGSTER_HOME", "NUMBA_CACHE_DIR"):
        monkeypatch.setenv(name, "before")
        monkeypatch.delenv(name)
    return named


def everything_in(url: str) -> str:
    """Every row of every table of a database, as text."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            tables = inspect(engine).get_table_names()
            rows = [connection.execute(text(f'SELECT t::text FROM "{name}" t')).scalars().all() for name in tables]
        return "\n".join(str(row) for table in rows for row in table)
    finally:
        engine.dispose()


def test_runs_are_stored_on_the_server_and_no_secret_is_stored_anywhere(
    urls: dict[str, str], aws: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "aws")
    place = prepare_home(announce=False)
    assert (place.dagster / "dagster.yaml").read_bytes() == (PROJECT_ROOT / "dagster.postgres.yaml").read_bytes()
    with dg.DagsterInstance.get() as instance:
        job = bind(definitions()).get_job_def("cold_start")
        done = job.execute_in_process(instance=instance)
        assert done.success
        assert instance.get_run_by_id(done.run_id) is not None
        assert instance.run_monitoring_enabled
    assert list(place.root.rglob("*.db")) == []
    stored = {name: everything_in(url) for name, url in urls.items()}
    assert done.run_id in stored["of_dagster"]

    buckets = [bucket["Name"] for bucket in client("s3").list_buckets()["Buckets"]]
    assert len(buckets) == 2
    files = [path.read_bytes() for path in place.root.rglob("*") if path.is_file()]
    files += [content for name in buckets for content in objects(client("s3"), name, hidden=True).values()]
    password = str(make_url(urls["of_ours"]).password)
    for canary in (password, CANARY):
        assert canary.encode() not in b"".join(files)
        assert [name for name, content in stored.items() if canary in content] == []
