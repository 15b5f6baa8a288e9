"""The verdict that is shown counts everything tried so far, and says why where there is none."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sqlalchemy import Engine

from stockpicker_dagster.evaluation.judgement import FEWEST_JUDGED, judge, judge_all
from stockpicker_dagster.evaluation.trials import logged_trials
from stockpicker_dagster.research.backtest.days import verdict_of
from stockpicker_dagster.storage.database import migrate, open_database
from stockpicker_dagster_tests.evaluation.stored_strategies import SERVED, book, served_form

NOW = datetime(2022, 11, 1, tzinfo=UTC)
GOOD, POOR = book(SERVED, 0.004, 1), book(SERVED, 0.0, 2)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    opened = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    migrate(opened)
    return opened


def per_session(days: pl.DataFrame) -> float:
    net = days["net_return"].to_numpy()
    return float(net.mean() / net.std(ddof=1))


def test_the_verdict_is_held_against_every_trial_on_the_universe(engine: Engine) -> None:
    alone = judge("good", served_form(), GOOD, engine, NOW)
    assert alone.verdict == verdict_of(GOOD, [per_session(GOOD)])
    assert alone.no_verdict == ""
    for long in range(4, 10):
        judge("other", served_form(backtest={"long": long, "short": 3, "simulations": 20}), POOR, engine, NOW)
    again = judge("good", served_form(), GOOD, engine, NOW)
    assert again.verdict is not None
    assert alone.verdict is not None
    assert (alone.verdict.trials, again.verdict.trials) == (1, 7)
    assert again.verdict.deflated_sharpe < alone.verdict.deflated_sharpe
    assert again.verdict == verdict_of(GOOD, [per_session(GOOD)] + [per_session(POOR)] * 6)


def test_strategies_judged_together_count_each_other(engine: Engine) -> None:
    forms = {"good": served_form(), "poor": served_form(label={"horizon_days": 4})}
    found = judge_all(forms, {"good": GOOD, "poor": POOR}, engine, NOW)
    assert [each.verdict.trials for each in found.values() if each.verdict] == [2, 2]


def test_too_few_sessions_are_not_judged_and_still_are_a_trial(engine: Engine) -> None:
    few = judge("good", served_form(), GOOD.head(FEWEST_JUDGED - 1), engine, NOW)
    assert few.verdict is None
    assert few.no_verdict == "41 sessions are too few to be judged; 42 are needed"
    assert judge("good", served_form(), GOOD.head(FEWEST_JUDGED), engine, NOW).verdict is not None
    assert [trial.sessions for trial in logged_trials(engine)] == [FEWEST_JUDGED]


def test_a_book_that_never_traded_has_no_verdict(engine: Engine) -> None:
    found = judge("idle", served_form(), GOOD.with_columns(net_return=0.0), engine, NOW)
    assert found.verdict is None
    assert "never traded" in found.no_verdict
    assert np.isnan(logged_trials(engine)[0].sharpe)
