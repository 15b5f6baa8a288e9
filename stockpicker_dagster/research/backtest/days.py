"""The back-test as it is stored: one row a session, and the summary that any span of stored rows gives.

A day's row holds what happened to the book, to the same book on other rebalance offsets and to every random book on
that session; nothing in it depends on later sessions. Verdicts and summaries are never stored with the days, because
they change with every day that follows. How the books go on from one session to the next is `book_run`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.research.backtest.books import Books, BookStates, run_books
from stockpicker_dagster.research.backtest.engine import BookHistory, Rules
from stockpicker_dagster.research.backtest.market_data import MarketData, market_data
from stockpicker_dagster.research.backtest.performance import Performance, sharpe, sharpes, summary
from stockpicker_dagster.research.backtest.random_books import Percentile, percentile
from stockpicker_dagster.research.backtest.risk_ratios import RiskSummary, risk_summary
from stockpicker_dagster.research.backtest.signal_quality import SignalQuality, signal_quality
from stockpicker_dagster.research.backtest.significance.deflated_sharpe import FEWEST_SESSIONS
from stockpicker_dagster.research.backtest.significance.overfitting import BLOCKS, probability_of_overfitting
from stockpicker_dagster.research.backtest.significance.verdict import Verdict, verdict
from stockpicker_dagster.research.labels import forward_returns

_POSITION = pl.Struct({"symbol": pl.String(), "shares": pl.Float64(), "weight": pl.Float64()})
_FIGURES = (
    "equity",
    "net_return",
    "gross_return",
    "commission",
    "spread",
    "impact",
    "borrow",
    "interest",
    "turnover",
    "gross_exposure",
    "net_exposure",
)
COSTS = ("commission", "spread", "impact", "borrow")
"""The columns of what trading and holding cost."""

BACKTEST_SCHEMA: dict[str, pl.DataType] = {
    "date": pl.Date(),
    **dict.fromkeys(_FIGURES, pl.Float64()),
    "longs": pl.Int64(),
    "shorts": pl.Int64(),
    "positions": pl.List(_POSITION),
    "random_net_returns": pl.List(pl.Float64()),
    "fresh_gross_returns": pl.List(pl.Float64()),
    "random_turnover": pl.Float64(),
    "offset_net_returns": pl.List(pl.Float64()),
    "offset_gross_returns": pl.List(pl.Float64()),
    "unknown_delistings": pl.Int64(),
    "cautious_net_return": pl.Float64(),
}
"""One row: the session `date`, known after its close. equity in currency; returns, costs and turnover as fractions of
the equity at the close before; exposures and weights of the equity at the close; shares may be fractional.
random_net_returns: net returns of the books on permuted identities, random_turnover the mean of their turnover;
fresh_gross_returns: gross ones of fresh picks. offset_*: the same book decided on every offset that the rebalance rule
allows, in their order, its own among them. unknown_delistings: how many took effect without a known return;
cautious_net_return: what is left if each such return, on any day so far, was -30 %."""


@dataclass(frozen=True)
class BacktestSummary:
    """A span of stored days in one glance."""

    first: date
    last: date
    performance: Performance
    risk: RiskSummary
    random_books: Percentile | None
    """Where the net Sharpe ratio stands among books on permuted identities; None if the strategy never traded."""
    fresh_picks: Percentile | None
    """Where the gross Sharpe ratio stands among fresh random picks, before costs."""


@dataclass(frozen=True, eq=False)
class BacktestRun:
    """The rows that were asked for, and every book after each of the last sessions (two at most, ascending)."""

    days: pl.DataFrame
    states: tuple[BookStates, ...]


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
    """The rows of `days` in `BACKTEST_SCHEMA`, run from the first session; arguments as in `run_days`."""
    return run_days(predictions, prices, delistings, sessions, days, rules, calendar, simulations, seed).days


def run_days(
    predictions: pl.DataFrame,
    prices: pl.DataFrame,
    delistings: pl.DataFrame,
    sessions: Sequence[date],
    days: Sequence[date],
    rules: Rules,
    calendar: TradingCalendar,
    simulations: int,
    seed: int,
    *,
    look_back: Sequence[date] = (),
    resume_from: BookStates | None = None,
    sectors: pl.DataFrame | None = None,
    borrow_rates: pl.DataFrame | None = None,
    styles: pl.DataFrame | None = None,
) -> BacktestRun:
    """The rows of `days` in `BACKTEST_SCHEMA`, and the states to go on from.

    `sessions` run from the first that has scores, or the one after `resume_from`, to the last of `days`; the frames
    hold all their rows. `prices` also has those of `look_back`, the last `rules.look_back` sessions right before, or as
    many as there are; `sectors`, `borrow_rates` and `styles` are as in
    `market_data`. The book starts on the first session; a day before it has no row. The bytes of a row do not
    depend on where the run began.
    """
    wanted = set(days)
    rows, states = [pl.DataFrame(schema=BACKTEST_SCHEMA)], []
    known = [*look_back, *sessions]
    for piece in _pieces(sessions):
        begin = known.index(piece[0])
        before = known[max(0, begin - rules.look_back) : begin]
        seen = len(resume_from.symbols) if resume_from else 0
        market = market_data(
            prices.filter(pl.col("date").is_in([*before, *piece])),
            delistings,
            piece,
            known=resume_from.symbols if resume_from else (),
            trailing=rules.needs_trailing_risk,
            look_back=before,
            sectors=sectors,
            borrow_rates=borrow_rates,
            styles=styles,
        )
        books, resume_from = run_books(
            _score_panel(predictions, market),
            market,
            rules,
            calendar,
            books=simulations,
            seed=seed,
            resume_from=resume_from,
        )
        states.append(resume_from)
        rows.append(_rows(market, seen, books, [row for row, session in enumerate(piece) if session in wanted]))
    return BacktestRun(pl.concat(rows, rechunk=True), tuple(states))


def _pieces(sessions: Sequence[date]) -> list[Sequence[date]]:
    """All but the last session, then the last: so a run ends with both states that a daily one would have left."""
    return [piece for piece in (sessions[:-1], sessions[-1:]) if piece]


def _score_panel(predictions: pl.DataFrame, market: MarketData) -> NDArray[np.float64]:
    """The scores on the market's sessions; that of a stock without any price there is left out."""
    there = pl.col("symbol").is_in(list(market.symbols)) & pl.col("date").is_in(list(market.sessions))
    return market.panel(predictions.filter(there), "score")


def _rows(market: MarketData, seen: int, books: Books, rows: list[int]) -> pl.DataFrame:
    """The rows of the market's sessions by their numbers; its first `seen` symbols had a price before."""
    own = books.own
    priced = np.maximum.accumulate(~np.isnan(market.close), axis=0)
    priced[:, :seen] = True
    unknown = (market.delisted & np.isnan(market.delisting_return) & priced).sum(axis=1)
    return pl.DataFrame(
        {
            "date": [own.sessions[row] for row in rows],
            **{name: getattr(own, name)[rows] for name in _FIGURES},
            "longs": own.longs[rows],
            "shorts": own.shorts[rows],
            "positions": [_positions(market, own, row) for row in rows],
            "random_net_returns": books.permuted.net_return[rows],
            "fresh_gross_returns": books.fresh.gross_return[rows],
            "random_turnover": [_mean(books.permuted.turnover[row]) for row in rows],
            "offset_net_returns": np.column_stack([book.net_return for book in books.offsets])[rows],
            "offset_gross_returns": np.column_stack([book.gross_return for book in books.offsets])[rows],
            "unknown_delistings": unknown[rows],
            "cautious_net_return": books.cautious.net_return[rows],
        },
        schema=BACKTEST_SCHEMA,
    )


def _mean(values: NDArray[np.float64]) -> float:
    """Of one contiguous row, whatever the number of rows beside it: NumPy's sum over a matrix may round otherwise."""
    return float(np.ascontiguousarray(values).mean())


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
    exposures = ("turnover", "gross_exposure", "net_exposure", "longs", "shorts")
    figures = {name: days[name].to_numpy() for name in ("net_return", "gross_return", *exposures, *COSTS)}
    return BacktestSummary(
        first=days["date"][0],
        last=days["date"][-1],
        performance=summary(**figures),
        risk=risk_summary(figures["net_return"], figures["turnover"], figures["gross_exposure"]),
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


def offset_results(days: pl.DataFrame) -> list[OffsetResult]:
    """The Sharpe ratios over stored days for every rebalance offset of the rule; none without days."""
    if days.is_empty():
        return []
    gross, net = (sharpes(returns_matrix(days[f"offset_{kind}_returns"])) for kind in ("gross", "net"))
    return [OffsetResult(offset, float(gross[offset]), float(net[offset])) for offset in range(len(net))]


@dataclass(frozen=True)
class DelistingSensitivity:
    """What unknown delisting returns could change: the net Sharpe ratio if each is 0, and if each is -30 %."""

    unknown: int
    net_sharpe_at_zero: float
    net_sharpe_at_minus_30: float


def delisting_sensitivity(days: pl.DataFrame) -> DelistingSensitivity | None:
    """Both over stored days of rules that leave unknown returns at 0; None if every delisting return is known."""
    unknown = int(days["unknown_delistings"].sum())
    if not unknown:
        return None
    at_zero, at_minus_30 = (sharpe(days[name].to_numpy()) for name in ("net_return", "cautious_net_return"))
    return DelistingSensitivity(unknown, at_zero, at_minus_30)


def verdict_of(days: pl.DataFrame, trial_sharpes: ArrayLike, seed: int = 0) -> Verdict:
    """The verdict on stored days, held against all logged trials; raises as `significance.verdict` does.

    `trial_sharpes` `(N,)` are ratios per session, this one included. What may have been over-fitted is the rebalance
    offset.
    """
    offsets = returns_matrix(days["offset_net_returns"])
    return verdict(
        sessions=days["date"].to_list(),
        net_return=days["net_return"].to_numpy(),
        cost=days.select(pl.sum_horizontal(COSTS)).to_series().to_numpy(),
        random_net_returns=returns_matrix(days["random_net_returns"]),
        trial_sharpes=trial_sharpes,
        offset_sharpes=sharpes(offsets),
        configurations=offsets,
        seed=seed,
    )


def overfitting_among(returns: NDArray[np.float64]) -> float | None:
    """The probability that the best of several strategies, `(T, n)`, owes its place to over-fitting.

    None where a block of the cross-validation would have fewer than a month of sessions.
    """
    return probability_of_overfitting(returns) if len(returns) >= BLOCKS * FEWEST_SESSIONS else None


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
