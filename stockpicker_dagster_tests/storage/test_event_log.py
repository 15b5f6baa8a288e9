"""The pooled event log stores what Dagster's own one stores, in the same files."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import AssetMaterialization, DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from stockpicker_dagster.storage.event_log import _MOST_FILES_OPEN, PooledSqliteEventLogStorage


@pytest.fixture
def pooled(tmp_path: Path) -> Iterator[PooledSqliteEventLogStorage]:
    storage = PooledSqliteEventLogStorage(str(tmp_path / "pooled"))
    yield storage
    storage.dispose()


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[SqliteEventLogStorage]:
    storage = SqliteEventLogStorage(str(tmp_path / "plain"))
    yield storage
    storage.dispose()


def entry(run: str, number: int) -> dg.EventLogEntry:
    materialization = AssetMaterialization("a", partition=f"2024-01-{number % 28 + 1:02}")
    return dg.EventLogEntry(
        error_info=None,
        level=20,
        user_message=f"event {number}",
        run_id=run,
        timestamp=float(number),
        job_name="job",
        dagster_event=DagsterEvent(
            event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name="job",
            event_specific_data=StepMaterializationData(materialization, []),
        ),
    )


def contents(storage: SqliteEventLogStorage, runs: list[str]) -> list[list[str]]:
    return [[record.user_message for record in storage.get_logs_for_run(run)] for run in runs]


def test_it_stores_what_the_default_storage_stores(
    pooled: PooledSqliteEventLogStorage, plain: SqliteEventLogStorage, tmp_path: Path
) -> None:
    for storage in (pooled, plain):
        for number in range(6):
            storage.store_event(entry(f"run{number % 2}", number))
    runs = ["run0", "run1", "absent"]
    assert (
        contents(pooled, runs)
        == contents(plain, runs)
        == [[f"event {n}" for n in (0, 2, 4)], [f"event {n}" for n in (1, 3, 5)], []]
    )
    key = dg.AssetKey("a")
    assert pooled.get_materialized_partitions(key) == plain.get_materialized_partitions(key)
    assert len(pooled.get_materialized_partitions(key)) == 6
    pooled.dispose()
    put_back = SqliteEventLogStorage(str(tmp_path / "pooled"))
    assert contents(put_back, runs) == contents(plain, runs)
    put_back.dispose()


def test_more_runs_than_open_files_lose_nothing(pooled: PooledSqliteEventLogStorage) -> None:
    runs = [f"run{number}" for number in range(_MOST_FILES_OPEN + 4)]
    for number, run in enumerate(runs):
        pooled.store_event(entry(run, number))
    pooled.store_event(entry(runs[0], 99))
    assert contents(pooled, runs) == [["event 0", "event 99"], *([f"event {n}"] for n in range(1, len(runs)))]
    assert len(pooled._engines) <= _MOST_FILES_OPEN


def test_threads_may_write_at_once(pooled: PooledSqliteEventLogStorage) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: pooled.store_event(entry(f"run{number % 3}", number)), range(60)))
    stored = contents(pooled, ["run0", "run1", "run2"])
    assert sorted(message for run in stored for message in run) == sorted(f"event {number}" for number in range(60))


def test_wiping_forgets_everything_and_the_storage_goes_on(pooled: PooledSqliteEventLogStorage) -> None:
    pooled.store_event(entry("run", 1))
    pooled.wipe()
    assert contents(pooled, ["run"]) == [[]]
    assert pooled.get_materialized_partitions(dg.AssetKey("a")) == set()
    pooled.store_event(entry("run", 2))
    assert contents(pooled, ["run"]) == [["event 2"]]


def test_deleting_a_run_leaves_the_others(pooled: PooledSqliteEventLogStorage) -> None:
    pooled.store_event(entry("run0", 1))
    pooled.store_event(entry("run1", 2))
    pooled.delete_events("run0")
    assert contents(pooled, ["run0", "run1"]) == [[], ["event 2"]]


def test_dagster_loads_it_where_its_settings_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(
        "event_log_storage: {module: stockpicker_dagster.storage.event_log, class: PooledSqliteEventLogStorage}\n"
    )
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, PooledSqliteEventLogStorage)
    assert (tmp_path / "history" / "runs" / "index.db").exists()
