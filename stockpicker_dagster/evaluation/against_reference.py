"""A back-test's stored days beside a benchmark and known factors, from the file that the strategy's form names.

The regressions are `research.backtest.factor_model`. Libraries of factors are published months late, so the figures are
of the sessions that the file covers, and say which; a session missing in between is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.reference_returns import aligned, read_reference_returns
from stockpicker_dagster.research.backtest.factor_model import (
    AgainstBenchmark,
    FactorModel,
    against_benchmark,
    factor_model,
)
from stockpicker_dagster.strategy_form.reference import ReferenceForm

FEWEST_SESSIONS = 63
"""A quarter: below it a regression on daily returns says nothing."""


@dataclass(frozen=True)
class AgainstReference:
    """Net returns from `first` to `last`, the sessions of the back-test that the file covers."""

    first: date
    last: date
    sessions: int
    benchmark_name: str | None
    benchmark: AgainstBenchmark | None
    factors: FactorModel | None


@dataclass(frozen=True)
class ReferenceResult:
    """The figures, or in a sentence why there are none."""

    figures: AgainstReference | None
    no_figures: str
    """Empty if there are some."""


def against_reference(form: ReferenceForm, days: pl.DataFrame) -> ReferenceResult:
    """Stored `days` (`BACKTEST_SCHEMA`, ascending) against the file of the form.

    Whatever the file lacks is said instead of raised: the back-test itself is not in question.
    """
    try:
        return ReferenceResult(_figures(form, days), "")
    except InvalidInput as error:
        return ReferenceResult(None, str(error))


def _figures(form: ReferenceForm, days: pl.DataFrame) -> AgainstReference:
    returns = read_reference_returns(form.path)
    covered = days.filter(pl.col("date").is_between(returns["date"].min(), returns["date"].max()))
    if covered.height < FEWEST_SESSIONS:
        raise InvalidInput(
            f"{form.path} covers {covered.height} of the back-test's {days.height} sessions; at least "
            f"{FEWEST_SESSIONS} are needed, and the file ends on {returns['date'].max()!s}"
        )
    sessions: Sequence[date] = covered["date"].to_list()
    columns = aligned(returns, form.columns, sessions)
    net = covered["net_return"].to_numpy()

    def column(name: str) -> np.ndarray:
        return columns[name.strip().casefold()]

    return AgainstReference(
        first=sessions[0],
        last=sessions[-1],
        sessions=len(sessions),
        benchmark_name=form.benchmark,
        benchmark=None if form.benchmark is None else against_benchmark(net, column(form.benchmark)),
        factors=None
        if not form.factors
        else factor_model(
            net,
            {name: column(name) for name in form.factors},
            risk_free=None if form.risk_free is None else column(form.risk_free),
        ),
    )
