"""The back-test as it is stored: one row a session, and the summary that any span of stored rows gives.

A day's row holds what happened to the book and to every random book on that session; nothing in it depends on later
sessions. Verdicts and summaries are never stored with the days, because they change with every day that follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import polars as pl

from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.research.backtest.engine import BookHistory, Rules, run
from stockpicker_dagster.research.backtest.market_data import MarketData, market_data
from stockpicker_dagster.research.backtest.performance import Performance, sharpe, sharpes, summary
from stockpicker_dagster.research.backtest.random_books import (
    Percentile,
    RandomBooks,
    fresh_picks,
    percentile,
    permuted_books,
)
from stockpicker_dagster.research.backtest.signal_quality import SignalQuality, signal_quality
from stockpicker_dagster.research.labels import forward_returns
from stockpicker_dagster.research.rebalancing import rebalance_days, rebalance_offsets

_POSITION = pl.Struct({"symbol": pl.String(), "shares": pl.Float64(), "weight": pl.Float64()})
_FIGURES = (
    "equity",
    "net_return",
    "gross_return",
    "commission",
    "spread",
    "borrow",
    "interest",
    "turnover",
    "gross_exposure",
    "net_exposure",
)

BACKTEST_SCHEMA: dict[str, pl.DataType] = {
    "date": pl.Date(),
    **dict.fromkeys(_FIGURES, pl.Float64()),
    "longs": pl.Int64(),
    "shorts": pl.Int64(),
    "positions": pl.List(_POSITION),
    "random_net_returns": pl.List(pl.Float64()),
    "fresh_gross_returns": pl.List(pl.Float64()),
}
"""One row: the session `date`, known after its close. equity in currency; returns, costs and turnover as fractions of
the equity at the close before; exposures and weights of the equity at the close; shares may be fractional.
random_net_returns: net returns of the books on permuted identities; fresh_gross_returns: gross ones of fresh picks."""


@dataclass(frozen=True)
class BacktestSummary:
    """A span of stored days in one glance."""

    first: date
    last: date
    performance: Performance
    random_books: Percentile | None
    """Where the net Sharpe ratio stands among books on permuted identities; None if the strategy never traded."""
    fresh_picks: Percentile | None
    """Where the gross Sharpe ratio stands among fresh random picks, before costs."""


def backtest_days(
    predictions: pl.DataFrame,
    prices: pl.DataFrame,
    delistings: pl.DataFrame,
    sessions: Sequence[date],
    days: Sequence[date],
    rules: Rules,
    calendar: TradingCalendar,
    simulations: int,
    seed: int,
) -> pl.DataFrame:
    """The rows of `days` in `BACKTEST_SCHEMA`.

    `sessions` run from the first that has scores to the last of `days`, and the three frames hold all their rows. The
    book starts on the first session; a day before it has no row.
    """
    wanted = [day for day in days if sessions and day >= sessions[0]]
    if not wanted:
        return pl.DataFrame(schema=BACKTEST_SCHEMA)
    market, scores = _scored_market(predictions, prices, delistings, sessions)
    deciding = rebalance_days(sessions, rules.rebalance, calendar, rules.rebalance_offset)
    history = run(scores, market, rules, deciding)
    permuted = permuted_books(scores, market, rules, deciding, books=simulations, seed=seed)
    fresh = fresh_picks(scores, market, rules, deciding, books=simulations, seed=seed)
    row_of = {session: row for row, session in enumerate(sessions)}
    return _rows(market, history, permuted, fresh, [row_of[day] for day in wanted])


def _scored_market(
    predictions: pl.DataFrame, prices: pl.DataFrame, delistings: pl.DataFrame, sessions: Sequence[date]
) -> tuple[MarketData, np.ndarray]:
    """The market of `sessions` and the score panel on it; a score of a stock without any price there is left out."""
    market = market_data(prices, delistings, sessions)
    return market, market.panel(predictions.filter(pl.col("symbol").is_in(list(market.symbols))), "score")


def _rows(
    market: MarketData, history: BookHistory, permuted: RandomBooks, fresh: RandomBooks, rows: list[int]
) -> pl.DataFrame:
    columns = {name: getattr(history, name)[rows] for name in _FIGURES}
    return pl.DataFrame(
        {
            "date": [history.sessions[row] for row in rows],
            **columns,
            "longs": history.longs[rows],
            "shorts": history.shorts[rows],
            "positions": [_positions(market, history, row) for row in rows],
            "random_net_returns": permuted.net_return[rows],
            "fresh_gross_returns": fresh.gross_return[rows],
        },
        schema=BACKTEST_SCHEMA,
    )


def _positions(market: MarketData, history: BookHistory, row: int) -> list[dict[str, object]]:
    held = sorted(np.flatnonzero(history.shares[row]), key=lambda column: market.symbols[column])
    return [
        {
            "symbol": market.symbols[column],
            "shares": float(history.shares[row, column]),
            "weight": float(history.weights[row, column]),
        }
        for column in held
    ]


def summarize(days: pl.DataFrame) -> BacktestSummary | None:
    """The summary of stored days (`BACKTEST_SCHEMA`, ascending); None if there are none."""
    if days.is_empty():
        return None
    figures = {
        name: days[name].to_numpy()
        for name in ("net_return", "gross_return", "turnover", "gross_exposure", "net_exposure", "longs", "shorts",
                     "commission", "spread", "borrow")
    }  # fmt: skip
    return BacktestSummary(
        first=days["date"][0],
        last=days["date"][-1],
        performance=summary(**figures),
        random_books=_standing(figures["net_return"], days["random_net_returns"]),
        fresh_picks=_standing(figures["gross_return"], days["fresh_gross_returns"]),
    )


def returns_matrix(column: pl.Series) -> np.ndarray:
    """A column of equally long lists as a matrix, sessions by books."""
    return np.asarray(column.explode().to_numpy()).reshape(len(column), -1)


def _standing(own: np.ndarray, books: pl.Series) -> Percentile | None:
    strategy = sharpe(own)
    return None if np.isnan(strategy) else percentile(strategy, sharpes(returns_matrix(books)))


@dataclass(frozen=True)
class OffsetResult:
    """The Sharpe ratios of the same scores, decided on another day of the week or month."""

    offset: int
    gross_sharpe: float
    net_sharpe: float


def offset_spread(
    predictions: pl.DataFrame,
    prices: pl.DataFrame,
    delistings: pl.DataFrame,
    sessions: Sequence[date],
    rules: Rules,
    calendar: TradingCalendar,
) -> list[OffsetResult]:
    """The strategy's own book for every rebalance offset of its rule; the frames are those of `backtest_days`."""
    market, scores = _scored_market(predictions, prices, delistings, sessions)
    results = []
    for offset in rebalance_offsets(rules.rebalance):
        deciding = rebalance_days(sessions, rules.rebalance, calendar, offset)
        history = run(scores, market, replace(rules, rebalance_offset=offset), deciding)
        results.append(OffsetResult(offset, sharpe(history.gross_return), sharpe(history.net_return)))
    return results


@dataclass(frozen=True)
class DelistingSensitivity:
    """What unknown delisting returns could change: the net Sharpe ratio if each is 0, and if each is -30 %.

    Shumway (1997) measured -30 % for delistings for cause.
    """

    unknown: int
    net_sharpe_at_zero: float
    net_sharpe_at_minus_30: float


def delisting_sensitivity(
    predictions: pl.DataFrame,
    prices: pl.DataFrame,
    delistings: pl.DataFrame,
    sessions: Sequence[date],
    rules: Rules,
    calendar: TradingCalendar,
) -> DelistingSensitivity | None:
    """The strategy's own book under both assumptions; None if every delisting return is known."""
    unknown = delistings["return"].null_count()
    if not unknown:
        return None
    market, scores = _scored_market(predictions, prices, delistings, sessions)
    deciding = rebalance_days(sessions, rules.rebalance, calendar, rules.rebalance_offset)
    at_zero, at_minus_30 = (
        sharpe(run(scores, market, replace(rules, assumed_delisting_return=assumed), deciding).net_return)
        for assumed in (0.0, -0.3)
    )
    return DelistingSensitivity(unknown, at_zero, at_minus_30)


def score_quality(
    predictions: pl.DataFrame,
    prices: pl.DataFrame,
    delistings: pl.DataFrame,
    calendar: TradingCalendar,
    horizon_days: int,
) -> SignalQuality | None:
    """IC and rank IC of stored scores against the tradable returns that followed; None without a scored day.

    Scores whose return is not known by the last session of `prices` are left out.
    """
    if predictions.is_empty():
        return None
    returns = forward_returns(prices, delistings, calendar, horizon_days)
    known = predictions.join(returns, on=["symbol", "date"], how="inner").filter(pl.col("label_return").is_not_null())
    if known.is_empty():
        return None
    wide = {
        name: known.pivot(on="symbol", index="date", values=name, sort_columns=True).sort("date").drop("date")
        for name in ("score", "label_return")
    }
    scores, labels = (frame.fill_null(float("nan")).to_numpy() for frame in wide.values())
    return signal_quality(scores, labels, horizon_days)
