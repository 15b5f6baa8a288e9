"""The verdict on stored days: remembers that they were looked at, and holds them against everything tried so far.

To see a back-test's figures is what makes it a trial, so whoever shows them comes through here. The arithmetic is in
`research.backtest.significance`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from sqlalchemy import Engine

from stockpicker_dagster.evaluation.trials import Trial, log_trials, trial_of, trial_sharpes
from stockpicker_dagster.research.backtest.days import verdict_of
from stockpicker_dagster.research.backtest.significance.deflated_sharpe import FEWEST_SESSIONS
from stockpicker_dagster.research.backtest.significance.verdict import Verdict
from stockpicker_dagster.strategy_form import StrategyForm

FEWEST_JUDGED = 2 * FEWEST_SESSIONS
"""Sessions below which no half of a back-test says anything."""


@dataclass(frozen=True)
class Judgement:
    """A verdict, or why there is none."""

    verdict: Verdict | None
    no_verdict: str
    """Empty if there is one."""


def judge(name: str, form: StrategyForm, days: pl.DataFrame, engine: Engine, now: datetime) -> Judgement:
    """The verdict on `days` (`BACKTEST_SCHEMA`, ascending, at least one), after logging them as a trial."""
    return judge_all({name: form}, {name: days}, engine, now)[name]


def judge_all(
    forms: Mapping[str, StrategyForm], days: Mapping[str, pl.DataFrame], engine: Engine, now: datetime
) -> dict[str, Judgement]:
    """The verdict on each strategy's days; all of them are logged first, so that each counts the others."""
    trials = {
        name: trial_of(name, form, days[name]["date"].to_list(), days[name]["net_return"].to_numpy())
        for name, form in forms.items()
    }
    log_trials(engine, list(trials.values()), now)
    return {name: _judgement(trials[name], days[name], form.backtest.seed, engine) for name, form in forms.items()}


def _judgement(trial: Trial, days: pl.DataFrame, seed: int, engine: Engine) -> Judgement:
    if trial.sessions < FEWEST_JUDGED:
        return Judgement(None, f"{trial.sessions} sessions are too few to be judged; {FEWEST_JUDGED} are needed")
    if np.isnan(trial.sharpe):
        return Judgement(None, "the book never traded, so that there is nothing to judge")
    tried = trial_sharpes(engine, trial.universe, trial.first_session, trial.last_session)
    return Judgement(verdict_of(days, tried, seed), "")
