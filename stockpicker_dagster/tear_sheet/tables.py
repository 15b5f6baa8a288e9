"""The tables of the tear sheet: every figure as text with its unit, and what it means in one sentence.

The arithmetic is in `research.backtest`. A dash stands for a figure that does not exist for these days.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.evaluation.against_reference import ReferenceResult
from stockpicker_dagster.research.backtest import risk_ratios
from stockpicker_dagster.research.backtest.capacity import Capacity
from stockpicker_dagster.research.backtest.days import COSTS, BacktestSummary
from stockpicker_dagster.research.backtest.performance import per_year
from stockpicker_dagster.research.backtest.signal_study import SignalStudy
from stockpicker_dagster.research.backtest.significance.verdict import STRONG, WEAK, Verdict
from stockpicker_dagster.tear_sheet.wording import NONE, number, percent, signed, signed_percent

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One figure: its name, its value with the unit, and its definition."""

    name: str
    shown: str
    definition: str


@dataclass(frozen=True)
class Cell:
    """One month's or year's return, as text; `tint` from -3 (a large loss) to 3 (a large gain), 0 where it is small."""

    shown: str
    tint: int


@dataclass(frozen=True)
class YearOfMonths:
    """A calendar year: twelve cells, None for months without a session, and the year's own."""

    year: int
    months: tuple[Cell | None, ...]
    whole: Cell


def verdict_rows(verdict: Verdict, trials_where: str) -> list[Row]:
    """The figures that the words rest on; `trials_where` names the universe that trials are counted on."""
    interval, returns, halves = verdict.sharpe_interval, verdict.return_interval, verdict.sub_periods.halves
    rows = [
        Row(
            "Sharpe ratio, after costs",
            f"{number(verdict.sharpe)} per year ({number(interval.low)} to {number(interval.high)})",
            "Mean daily net return over its standard deviation, times the square root of 252; in brackets a 95 % "
            "interval by the stationary block bootstrap.",
        ),
        Row(
            "Mean return, after costs",
            f"{signed_percent(returns.low)} to {signed_percent(returns.high)} per year",
            "A 95 % interval of the arithmetic mean daily net return times 252, by the same bootstrap.",
        ),
        Row(
            "Deflated Sharpe ratio",
            f"{verdict.deflated_sharpe:.3f}",
            "The probability that the true Sharpe ratio is above what luck alone gives the best of all trials. Weak "
            f"asks for {WEAK[0]}, strong for {STRONG[0]}.",
        ),
        Row(
            "Trials counted",
            str(verdict.trials),
            f"Back-tests on {trials_where} over days that overlap these, this one included, that anybody looked at: "
            "the more were tried, the better the best of them looks by luck.",
        ),
        Row(
            "If it were the only trial",
            f"{verdict.probabilistic_sharpe:.3f}",
            "The probability that the true Sharpe ratio is above zero (probabilistic Sharpe ratio).",
        ),
        Row(
            "Random books beaten",
            f"{verdict.permutation.percentile:.1f} % of {verdict.permutation.books}",
            "Books on the strategy's own scores under permuted identities of the stocks, with the same rules, turnover "
            "and costs, that have a lower Sharpe ratio.",
        ),
        Row(
            "Permutation p-value",
            f"{verdict.permutation.p_value:.3f}",
            "How often a random book is at least as good, counted exactly. Weak asks for at most "
            f"{WEAK[1]}, strong for {STRONG[1]}.",
        ),
        Row(
            "Least track record",
            f"{verdict.minimum_track_record:,.0f} sessions" if math.isfinite(verdict.minimum_track_record) else "never",
            f"Sessions until this ratio would be above zero with 95 % confidence; there are {verdict.sessions:,}.",
        ),
        Row(
            "Break-even costs",
            f"{number(verdict.break_even_cost)} times",
            "By what factor all costs would have to grow for nothing to be left; below 1 the book loses money already.",
        ),
        Row(
            "Years above zero",
            percent(verdict.sub_periods.positive_years, 0),
            "The share of calendar years of at least 21 sessions with a positive net Sharpe ratio.",
        ),
        Row(
            "First half, second half",
            f"{number(halves[0])}, {number(halves[1])} per year",
            "The net Sharpe ratio of either half of the days.",
        ),
    ]
    if verdict.offsets:
        spread = verdict.offsets
        rows.append(
            Row(
                "Over rebalance offsets",
                f"{number(spread.mean)} per year ({number(spread.lowest)} to {number(spread.highest)})",
                "The mean net Sharpe ratio of the same scores decided on every day of the week or month that the rule "
                "allows, with its range.",
            )
        )
    rows.append(
        Row(
            "Probability of over-fitting",
            NONE if verdict.overfitting is None else number(verdict.overfitting),
            "How often the rebalance offset that looks best in one half of the days is below the middle in the other "
            "half (combinatorially symmetric cross-validation); 0.50 is luck. A dash: one offset, or too few days.",
        )
    )
    return rows


def performance_rows(summary: BacktestSummary, days: pl.DataFrame) -> list[Row]:
    """The field's figures of stored days; returns are net of costs unless the name says otherwise."""
    figures, net = summary.performance, days["net_return"].to_numpy()
    traded = 0.5 * figures.turnover_per_year
    paid = {kind: per_year(days[kind].to_numpy()) for kind in COSTS}
    kinds = ", ".join(f"{kind} {percent(each, 2)}" for kind, each in paid.items())
    held = 252.0 * figures.mean_gross_exposure / traded if traded > 0.0 else math.nan
    return [
        Row("Annual return", f"{signed_percent(figures.net_annual_return)} per year", "Compounded, after costs."),
        Row("Annual return before costs", f"{signed_percent(figures.gross_annual_return)} per year", "Compounded."),
        Row(
            "Volatility",
            f"{percent(figures.volatility)} per year",
            "Standard deviation of daily returns times the square root of 252.",
        ),
        Row(
            "Sharpe ratio",
            f"{number(figures.net_sharpe)} per year",
            "Mean over standard deviation, times the square root of 252; nothing is subtracted for cash, because a "
            "long-short book finances itself.",
        ),
        Row("Sharpe ratio before costs", f"{number(figures.gross_sharpe)} per year", "The same of gross returns."),
        Row(
            "Sortino ratio",
            f"{number(risk_ratios.sortino(net))} per year",
            "Mean over the root mean square of the returns below zero, per year.",
        ),
        Row(
            "Calmar ratio",
            f"{number(risk_ratios.calmar(net))} per year",
            "Compounded annual return over the largest drawdown.",
        ),
        Row(
            "Largest drawdown",
            percent(figures.max_drawdown),
            "The deepest fall of wealth below its earlier peak, in per cent of the peak.",
        ),
        Row(
            "Its length",
            f"{figures.max_drawdown_sessions:,} sessions",
            "From the peak until wealth is back at it, or to the last day if it is not.",
        ),
        Row(
            "Ulcer index",
            percent(risk_ratios.ulcer_index(net)),
            "Root mean square drawdown over all days (Martin).",
        ),
        Row(
            "Hit rate",
            percent(figures.hit_rate),
            "The share of days with a gain among those with a gain or a loss.",
        ),
        Row("Skewness", number(risk_ratios.skewness(net)), "Of daily returns; below 0, losses have the longer tail."),
        Row("Kurtosis", number(risk_ratios.kurtosis(net)), "Of daily returns; 3 for a normal distribution."),
        Row(
            "Tail ratio",
            number(risk_ratios.tail_ratio(net)),
            "The 95th percentile of daily returns over the absolute 5th; above 1, good days are the larger ones.",
        ),
        Row(
            "Value at risk, 5 %",
            f"{signed_percent(risk_ratios.value_at_risk(net), 2)} per day",
            "The daily return that one day in twenty was below.",
        ),
        Row(
            "Expected shortfall, 5 %",
            f"{signed_percent(risk_ratios.expected_shortfall(net), 2)} per day",
            "The mean return of those days (CVaR).",
        ),
        Row(
            "Turnover",
            f"{number(figures.turnover_per_year, 1)} times equity per year",
            "Notional bought plus sold; 4 is one whole turn of a 100 % long, 100 % short book.",
        ),
        Row(
            "Mean holding period",
            f"{number(held, 0)} sessions",
            "Mean gross exposure over half the turnover, in sessions.",
        ),
        Row(
            "Costs",
            f"{percent(sum(paid.values()), 2)} per year",
            f"In per cent of equity: {kinds}.",
        ),
        Row(
            "Gross exposure",
            f"{percent(figures.mean_gross_exposure, 0)} of equity",
            "Long plus short market value at the close, mean over all days.",
        ),
        Row(
            "Net exposure",
            f"{signed_percent(figures.mean_net_exposure)} of equity",
            "Long less short market value at the close, mean over all days.",
        ),
        Row(
            "Names held",
            f"{number(figures.mean_longs, 0)} long, {number(figures.mean_shorts, 0)} short",
            "Mean over all days.",
        ),
    ]


def capacity_rows(capacity: Capacity) -> list[Row]:
    """How much money the book could carry, by the square-root law of market impact."""
    return [
        Row(
            "Capital at which half is left",
            f"{capacity.half_of_return:,.0f} in currency",
            "The equity at which market impact would take half of the mean return before it, every trade moving the "
            "price by its stock's daily volatility times the square root of its share of daily volume.",
        ),
        Row("Capital at which nothing is left", f"{capacity.break_even:,.0f} in currency", "The same for all of it."),
        Row(
            "Capital at 1 % of volume",
            f"{capacity.at_one_percent_of_volume:,.0f} in currency",
            "The equity at which one trade in ten is above 1 % of the mean volume of the 20 sessions before.",
        ),
    ]


def reference_rows(reference: ReferenceResult) -> list[Row]:
    """The book beside the benchmark and the factors that the strategy names; none where there are no figures."""
    figures, rows = reference.figures, []
    if figures is None:
        return []
    over = f"{figures.sessions:,} sessions, {figures.first} to {figures.last}, that the file covers"
    if (beside := figures.benchmark) is not None:
        rows += [
            Row(
                f"Beta against {figures.benchmark_name}",
                f"{number(beside.beta)}, correlation {number(beside.correlation)}",
                f"Slope of net returns on those of the benchmark, over {over}.",
            ),
            Row(
                f"Alpha against {figures.benchmark_name}",
                f"{signed_percent(beside.alpha)} per year (t {number(beside.alpha_t, 1)})",
                "Intercept of that regression times 252; t by Newey and West.",
            ),
            Row(
                "Tracking error, information ratio",
                f"{percent(beside.tracking_error)}, {number(beside.information_ratio)} per year",
                "Standard deviation of the difference of returns per year, and its mean over it.",
            ),
        ]
    if (model := figures.factors) is not None:
        rows.append(
            Row(
                "Alpha against factors",
                f"{signed_percent(model.alpha)} per year (t {number(model.alpha_t, 1)})",
                f"What {', '.join(model.betas)} leave unexplained, over {over}; R squared {number(model.r_squared)}.",
            )
        )
        rows += [
            Row(
                f"Beta on {name}",
                f"{number(beta)} (t {number(model.beta_t[name], 1)})",
                "Slope on the factor's return beside all the others; t by Newey and West.",
            )
            for name, beta in model.betas.items()
        ]
    return rows


def signal_rows(study: SignalStudy, own: int) -> list[Row]:
    """How well the scores ordered the returns that followed, at the horizon in place `own`, which is the label's."""
    figures = study.all_stocks[own]
    quality, quantiles = figures.quality, figures.quantile_returns
    horizon = f"{quality.horizon} session{'s' if quality.horizon > 1 else ''}"
    years = {year: each[own].quality for year, each in study.by_year.items()}
    by_sector = {name: each[own].quality for name, each in study.by_sector.items() if each[own].quality.days}
    sectors = Row(
        "Rank IC by sector",
        ", ".join(f"{name}: {signed(each.mean_rank_ic, 3)}" for name, each in by_sector.items()),
        "The same among the stocks of one sector alone, over the days on which it has enough of them.",
    )
    return [
        Row(
            "IC",
            f"{signed(quality.mean_ic, 4)} (t {number(quality.ic_t, 1)})",
            f"Mean daily correlation of scores with returns over {horizon} from the next open; t by Newey and West, "
            f"over {quality.days:,} days whose returns are known.",
        ),
        Row(
            "Rank IC",
            f"{signed(quality.mean_rank_ic, 4)} (t {number(quality.rank_ic_t, 1)})",
            "The same of ranks (Spearman).",
        ),
        Row(
            "Rank IC by year",
            ", ".join(f"{year}: {signed(each.mean_rank_ic, 3)}" for year, each in years.items() if each.days),
            "The mean over the days of each calendar year.",
        ),
        *([sectors] if by_sector else []),
        Row(
            "Spread of quantiles",
            f"{signed_percent(quantiles.spread, 2)} (t {number(quantiles.spread_t, 1)})",
            f"Mean return over {horizon} of the most attractive group less that of the least attractive, before costs.",
        ),
        Row(
            "Quantiles in order",
            f"{percent(quantiles.steps_in_order, 0)}, rank correlation {number(quantiles.rank_correlation)}",
            "The share of neighbouring groups of which the higher has the higher mean return, and the rank correlation "
            "of these means with the groups' order; 100 % and 1 if they rise all the way.",
        ),
        Row(
            "Turnover of the signal",
            f"{percent(figures.quantile_turnover[-1], 0)} top, {percent(figures.quantile_turnover[0], 0)} bottom",
            f"The mean share of a group's stocks that were not in it {horizon} before.",
        ),
        Row(
            "Autocorrelation of ranks",
            number(figures.rank_autocorrelation),
            f"The mean correlation of a day's ranks with those {horizon} before.",
        ),
    ]


def months_table(sessions: Sequence[date], returns: Floats) -> list[YearOfMonths]:
    """Compounded returns `(T,)` by calendar month and year; a month cut off by the span holds what is inside."""
    values: dict[tuple[int, int], float] = {}
    for session, daily in zip(sessions, returns.tolist(), strict=True):
        key = (session.year, session.month)
        values[key] = (1.0 + values.get(key, 0.0)) * (1.0 + daily) - 1.0
    spread = float(np.std(list(values.values()))) or 1.0
    years = []
    for year in sorted({year for year, _ in values}):
        inside = {month: value for (other, month), value in values.items() if other == year}
        whole = math.prod(1.0 + value for value in inside.values()) - 1.0
        years.append(
            YearOfMonths(
                year,
                tuple(_cell(inside[month], spread) if month in inside else None for month in range(1, 13)),
                _cell(whole, spread * math.sqrt(12.0)),
            )
        )
    return years


def _cell(value: float, spread: float) -> Cell:
    return Cell(signed(100.0 * value, 1), max(-3, min(3, round(1.5 * value / spread))))
