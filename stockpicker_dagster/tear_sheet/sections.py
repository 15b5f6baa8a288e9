"""The sections of the tear sheet in their order: plots, tables, and a sentence for whatever cannot be shown.

What a section holds follows from a `TearSheet` alone; how it looks is `page`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from stockpicker_dagster.research.backtest.days import COSTS, offset_results, returns_matrix, summarize
from stockpicker_dagster.research.backtest.performance import sharpe, sharpes
from stockpicker_dagster.research.backtest.risk_ratios import drawdowns
from stockpicker_dagster.research.backtest.rolling import rolling_sharpes, rolling_window
from stockpicker_dagster.tear_sheet import plots, tables
from stockpicker_dagster.tear_sheet.plots import Plot
from stockpicker_dagster.tear_sheet.sheet import TearSheet
from stockpicker_dagster.tear_sheet.signal import Signal

_LUCK = "What the verdict rests on"
_IC_WINDOW = 63
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")


@dataclass(frozen=True)
class Section:
    """A heading with what belongs under it; `missing` says why something is not there."""

    title: str
    plots: tuple[Plot, ...] = ()
    rows: tuple[tables.Row, ...] = ()
    months: tuple[tables.YearOfMonths, ...] = ()
    missing: tuple[str, ...] = ()


def sections(sheet: TearSheet) -> list[Section]:
    """Everything below the verdict and the caveats."""
    return [_wealth(sheet), _months(sheet), _luck(sheet), _book(sheet), _signal(sheet.signal), _performance(sheet)]


def _wealth(sheet: TearSheet) -> Section:
    days = sheet.days
    sessions, net, gross = days["date"].to_list(), days["net_return"].to_numpy(), days["gross_return"].to_numpy()
    permuted, fresh = returns_matrix(days["random_net_returns"]), returns_matrix(days["fresh_gross_returns"])
    drawn = [
        plots.equity(
            "equity_net",
            "Wealth after costs, among random books",
            sessions,
            net,
            permuted,
            "random books (permuted identities)",
            "after the same costs",
        ),
        plots.drawdown(sessions, drawdowns(net)),
    ]
    missing = []
    window = rolling_window(len(sessions))
    if window:
        low, _, high = plots.percentiles(rolling_sharpes(permuted, window))
        drawn.append(plots.rolling_sharpe(sessions, rolling_sharpes(net[:, None], window)[:, 0], low, high, window))
    else:
        missing.append(f"No rolling Sharpe ratio: {len(sessions)} sessions are fewer than two quarters.")
    drawn.append(
        plots.equity(
            "equity_gross",
            "Wealth before costs, among fresh random picks",
            sessions,
            gross,
            fresh,
            "books of fresh random picks",
            "before all costs",
            " They draw new names at every decision and are shown before costs only; the verdict does not use them.",
        )
    )
    return Section("Wealth and drawdown", tuple(drawn), missing=tuple(missing))


def _months(sheet: TearSheet) -> Section:
    table = tables.months_table(sheet.days["date"].to_list(), sheet.days["net_return"].to_numpy())
    return Section("Returns by month, after costs", months=tuple(table))


def _luck(sheet: TearSheet) -> Section:
    days, verdict = sheet.days, sheet.judgement.verdict
    own = sharpe(days["net_return"].to_numpy())
    if math.isnan(own):
        return Section(_LUCK, missing=("Nothing to compare: the book never traded on these days.",))
    drawn, missing = [plots.random_sharpes(own, sharpes(returns_matrix(days["random_net_returns"])))], []
    if verdict:
        drawn.append(plots.by_year(verdict.sub_periods.by_year))
    else:
        missing.append(f"No figures of a verdict: {sheet.judgement.no_verdict}.")
    results = offset_results(days)
    if len(results) > 1:
        net, gross = (np.array([getattr(each, f"{kind}_sharpe") for each in results]) for kind in ("net", "gross"))
        drawn.append(plots.offsets(_offset_names(sheet.rebalance, len(results)), net, gross, sheet.own_offset))
    else:
        missing.append("No spread over rebalance offsets: a book that is decided every day has only one.")
    rows = tuple(tables.verdict_rows(verdict, sheet.trials_where)) if verdict else ()
    return Section(_LUCK, tuple(drawn), rows, missing=tuple(missing))


def _offset_names(rebalance: str, count: int) -> Sequence[str]:
    return _WEEKDAYS if rebalance == "weekly" else [str(offset) for offset in range(count)]


def _book(sheet: TearSheet) -> Section:
    days = sheet.days
    sessions = days["date"].to_list()
    by_month = days.group_by(pl.col("date").dt.strftime("%Y-%m").alias("month"), maintain_order=True).agg(
        pl.col("turnover").sum(), pl.col("random_turnover").sum()
    )
    drawn = [
        plots.exposures(sessions, days["gross_exposure"].to_numpy(), days["net_exposure"].to_numpy()),
        plots.turnover(
            by_month["month"].to_list(),
            by_month["turnover"].to_numpy(),
            float(by_month["random_turnover"].to_numpy().mean()),
        ),
    ]
    paid = {kind: days[kind].to_numpy() for kind in COSTS if (days[kind] != 0.0).any()}
    if paid:
        drawn.append(plots.costs(sessions, paid))
    missing = () if paid else ("No costs: the rules have none, or the book never traded.",)
    return Section("Exposure, turnover and costs", tuple(drawn), missing=missing)


def _signal(signal: Signal | None) -> Section:
    title = "The scores themselves"
    if signal is None:
        return Section(title, missing=("Nothing to show: no return that followed a score is known yet.",))
    drawn, missing, study = [], [], signal.study
    if (~np.isnan(study.daily.quantile_returns[0])).any():
        drawn.append(plots.quantile_fan(signal.sessions, signal.fan))
    else:
        missing.append("No quantiles: no day has enough scored stocks to be cut into groups.")
    rank_ic = study.daily.rank_ic[signal.own]
    if (~np.isnan(rank_ic)).sum() >= _IC_WINDOW:
        drawn.append(plots.rank_ic(signal.sessions, rank_ic, _IC_WINDOW, study.horizons[signal.own]))
    else:
        missing.append(f"No rolling rank IC: fewer than {_IC_WINDOW} days have one.")
    known = [figures.quality for figures in study.all_stocks if figures.quality.days]
    means = np.array([quality.mean_rank_ic for quality in known])
    t = np.array([quality.rank_ic_t for quality in known])
    errors = np.where(t != 0.0, np.abs(means / np.where(t != 0.0, t, 1.0)), np.nan)
    drawn.append(plots.ic_decay([quality.horizon for quality in known], means, errors))
    return Section(title, tuple(drawn), tuple(tables.signal_rows(study, signal.own)), missing=tuple(missing))


def _performance(sheet: TearSheet) -> Section:
    summary = summarize(sheet.days)
    assert summary is not None
    rows, missing = tables.performance_rows(summary, sheet.days), []
    if sheet.capacity:
        rows += tables.capacity_rows(sheet.capacity)
    else:
        missing.append("No capacity: nothing was traded after the first 20 sessions, whose volumes it needs.")
    if sheet.reference:
        rows += tables.reference_rows(sheet.reference)
        if sheet.reference.no_figures:
            missing.append(f"No benchmark and no factors: {sheet.reference.no_figures}.")
    return Section("All figures", rows=tuple(rows), missing=tuple(missing))
