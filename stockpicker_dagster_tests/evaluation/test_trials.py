"""Every distinct thing that was tried is counted once, is kept, and is found again for a verdict."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, text
from sqlalchemy.exc import DatabaseError

from stockpicker_dagster.evaluation.trials import (
    Trial,
    log_trials,
    logged_trials,
    metadata,
    trial_of,
    trial_sharpes,
    universe_of,
)
from stockpicker_dagster.storage.database import migrate, open_database, transaction
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.people import tables
from stockpicker_dagster_tests.components.forms import strategy_form

NOW = datetime(2024, 3, 4, 22, tzinfo=UTC)
DAYS = [date(2023, 1, 2) + timedelta(days=day) for day in range(60)]
RETURNS = np.random.default_rng(0).normal(0.001, 0.01, len(DAYS))


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A migrated, empty database, once on SQLite and once on a real PostgreSQL."""
    if request.param == "sqlite":
        opened = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    else:
        opened = open_database(request.getfixturevalue("postgres_url"))
        with opened.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    migrate(opened)
    yield opened
    opened.dispose()


def looked_at(
    engine: Engine, form: StrategyForm, days: slice = slice(None), name: str = "mine", now: datetime = NOW
) -> Trial:
    trial = trial_of(name, form, DAYS[days], RETURNS[days])
    log_trials(engine, [trial], now)
    return trial


def test_the_revisions_make_the_table_that_the_code_declares(engine: Engine) -> None:
    with engine.connect() as connection:
        declared: Any = [ledger.metadata, metadata, tables.metadata]
        assert compare_metadata(MigrationContext.configure(connection), declared) == []


def test_looking_again_is_no_new_trial_and_neither_is_a_day_more(engine: Engine) -> None:
    form = strategy_form()
    for end in (40, 41, 41, 60):
        trial = looked_at(engine, form, slice(0, end), now=NOW + timedelta(days=end))
    assert logged_trials(engine) == [trial]
    assert trial.sharpe == pytest.approx(RETURNS.mean() / RETURNS.std(ddof=1))
    looked_at(engine, form, slice(0, 30))
    assert logged_trials(engine) == [trial], "an earlier end is not what the trial came to"


@pytest.mark.parametrize(
    "changes",
    [
        {"backtest": {"long": 4, "short": 3, "simulations": 20}},
        {"backtest": {"long": 3, "short": 3, "simulations": 20, "seed": 9}},
        {"algorithm": {"name": "linear", "seed": 5}},
        {"features": {"set": "factors", "names": ["reversal_1w", "illiquidity"]}},
        {"label": {"horizon_days": 4}},
        {"universe": {"name": "simulated", "min_price": 7.0}},
    ],
)
def test_every_change_that_could_change_the_result_is_another_trial(tmp_path: Path, changes: dict[str, Any]) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    migrate(engine)
    looked_at(engine, strategy_form())
    looked_at(engine, strategy_form(**changes))
    assert len(trial_sharpes(engine, universe_of(strategy_form()), DAYS[0], DAYS[-1])) == 2
    engine.dispose()


def test_another_name_or_more_random_books_are_the_same_trial(engine: Engine) -> None:
    looked_at(engine, strategy_form())
    looked_at(engine, strategy_form(), name="copied")
    looked_at(engine, strategy_form(backtest={"long": 3, "short": 3, "simulations": 50}))
    assert [trial.strategy for trial in logged_trials(engine)] == ["mine"]


def test_another_start_is_another_trial_and_only_windows_that_overlap_count(engine: Engine) -> None:
    form = strategy_form()
    universe = universe_of(form)
    whole, late = looked_at(engine, form, slice(0, 30)), looked_at(engine, form, slice(40, 60))
    assert len(logged_trials(engine, universe)) == 2
    assert trial_sharpes(engine, universe, DAYS[0], DAYS[10]).tolist() == [whole.sharpe]
    assert trial_sharpes(engine, universe, DAYS[59], DAYS[59]).tolist() == [late.sharpe]
    assert trial_sharpes(engine, universe, DAYS[30], DAYS[39]).tolist() == []
    assert len(trial_sharpes(engine, universe, DAYS[29], DAYS[40])) == 2


def test_a_trial_that_never_traded_counts_without_a_ratio(engine: Engine) -> None:
    log_trials(engine, [trial_of("idle", strategy_form(), DAYS, np.zeros(len(DAYS)))], NOW)
    assert np.isnan(trial_sharpes(engine, universe_of(strategy_form()), DAYS[0], DAYS[-1])).tolist() == [True]
    assert np.isnan(trial_of("new", strategy_form(), DAYS[:1], RETURNS[:1]).sharpe)


def test_what_narrows_a_universe_counts_as_trying_on_it() -> None:
    files = {"source": "files", "name": "mine", "path": "p.csv", "basis": "as_traded", "start": date(2018, 1, 2)}
    named = {
        "simulated on simulated": strategy_form(universe={"name": "simulated", "min_price": 7.0}),
        "symbols on simulated": strategy_form(universe={"symbols": ["A", "B"]}),
        "every stock on simulated": strategy_form(universe={"top": 5}),
        "sp500 on mine": strategy_form(universe={"name": "sp500", "sector": "Energy"}, prices=files),
        "list.csv on mine": strategy_form(universe={"file": "folder/list.csv"}, prices=files),
    }
    assert {name: universe_of(form) for name, form in named.items()} == {name: name for name in named}


def test_a_trial_is_never_forgotten(engine: Engine) -> None:
    looked_at(engine, strategy_form())
    with pytest.raises(DatabaseError, match="append-only"), transaction(engine) as connection:
        connection.execute(text("DELETE FROM trials"))
    assert len(logged_trials(engine)) == 1


def test_two_who_look_at_once_log_one_trial(engine: Engine) -> None:
    barrier, failures = threading.Barrier(4), []

    def look() -> None:
        try:
            barrier.wait()
            looked_at(engine, strategy_form())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(logged_trials(engine)) == 1
