"""The back-test of one strategy: shares and cash on as-traded prices, traded at the next open, marked at each close.

Splits multiply the shares and dividends move cash, so prices are never adjusted as well (that would count both twice).
Every cost is a figure of its own. Scores come in as a panel, decision days from `research.rebalancing`; comparing the
result with luck is `random_books`, judging it `performance`. The arithmetic itself is in `kernels`.
"""

from dataclasses import dataclass
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.research.backtest import kernels
from stockpicker_dagster.research.backtest.market_data import MarketData
from stockpicker_dagster.research.portfolio import Weighting, checked_scores, leg_rule
from stockpicker_dagster.research.rebalancing import RebalanceRule, rebalance_offsets

Floats = NDArray[np.float64]
_BASIS_POINT = 1e-4


class BookRuined(StockPickerError):
    """The back-tested book has lost all of its equity; there is nothing left to go on with."""


@dataclass(frozen=True)
class Rules:
    """How a strategy turns scores into positions, and what that costs; `InvalidInput` for a value not allowed."""

    long: float
    """Names held long: a whole number, or a fraction of the scored names."""
    short: float
    """Names held short, likewise; 0 for a long-only book."""
    weights: Weighting = "equal"
    rebalance: RebalanceRule = "weekly"
    rebalance_offset: int | None = None
    """Which day of the week or month; see `research.rebalancing`."""
    commission_bps: float = 0.0
    """Basis points of every traded notional."""
    spread_bps: float = 0.0
    """The full quoted spread in basis points of the price; a trade pays half of it."""
    borrow_bps_per_year: float = 0.0
    """Basis points per year on the market value of shorts at the close, for each calendar day of 365."""
    cash_interest_bps_per_year: float = 0.0
    """Likewise on the cash balance (short proceeds included), received if positive, paid if negative."""
    assumed_delisting_return: float = 0.0
    """Stands in where a delisting's return is unknown; show results at 0 and at -0.30 (Shumway 1997)."""
    capital: float = 1_000_000.0
    """Equity before the first session, in currency. Shares are fractional, so results scale with it."""
    fill: Literal["open"] = "open"
    """At which price of the session after the decision trades are filled."""

    def __post_init__(self) -> None:
        leg_rule(self.long, self.short, self.weights)
        allowed = rebalance_offsets(self.rebalance)
        if self.rebalance_offset is not None and self.rebalance_offset not in allowed:
            raise InvalidInput(
                f"rebalance_offset {self.rebalance_offset} is not allowed with {self.rebalance!r}; "
                f"choose {allowed[0]} to {allowed[-1]}"
            )
        for name in ("commission_bps", "spread_bps"):
            _require(0.0 <= getattr(self, name) < 10_000.0, name, getattr(self, name), "0 to below 10000 basis points")
        for name in ("borrow_bps_per_year", "cash_interest_bps_per_year"):
            _require(0.0 <= getattr(self, name) < np.inf, name, getattr(self, name), "0 or more basis points per year")
        _require(
            -1.0 <= self.assumed_delisting_return < np.inf,
            "assumed_delisting_return",
            self.assumed_delisting_return,
            "a fraction of at least -1",
        )
        _require(0.0 < self.capital < np.inf, "capital", self.capital, "a positive amount of money")
        _require(self.fill == "open", "fill", self.fill, "'open'")


@dataclass(frozen=True)
class BookHistory:
    """What happened to a book on each session: `(T,)`, and `(T, N)` for `shares` and `weights`; no NaN anywhere.

    Row *t* uses scores up to *t - 1* and prices up to *t* and is known after the close of *t*. Returns and costs are
    fractions of the equity at the close before, so that
    `net_return = gross_return + interest - commission - spread - borrow` and `gross_return = overnight + intraday`.
    """

    sessions: tuple[date, ...]
    symbols: tuple[str, ...]
    equity: Floats
    """Currency, at the close."""
    net_return: Floats
    gross_return: Floats
    """Of prices, dividends and delistings alone."""
    overnight: Floats
    """The part of `gross_return` from the close before to the open, earned by the old book."""
    intraday: Floats
    """The part from the open to the close, earned by the new book; delistings of the day included."""
    commission: Floats
    spread: Floats
    borrow: Floats
    interest: Floats
    turnover: Floats
    """Notional bought plus notional sold: 4.0 turns a whole 100 % long, 100 % short book over."""
    gross_exposure: Floats
    """Long plus short market value over equity, at the close."""
    net_exposure: Floats
    """Long less short market value over equity, at the close."""
    longs: NDArray[np.int64]
    shorts: NDArray[np.int64]
    shares: Floats
    weights: Floats
    """Market value over equity, at the close."""

    def open_to_open(self) -> Floats:
        """The gross return from the open of *t* to the open of *t + 1*, `(T - 1,)`, over the equity at the open of *t*.

        Known after the open of *t + 1*. It is what a score made after the close of *t - 1* earns.
        """
        before = self.equity[:-1] / (1.0 + self.net_return[:-1])
        at_open = before * (1.0 + self.overnight[:-1])
        return (before * self.intraday[:-1] + self.equity[:-1] * self.overnight[1:]) / at_open


def run(scores: Floats, market: MarketData, rules: Rules, decision_days: NDArray[np.bool_]) -> BookHistory:
    """Back-test one score panel.

    `scores` are `(T, N)` in the columns of `market`, NaN where a stock is no scored member; `decision_days` `(T,)` says
    which closes decide (`rebalancing.rebalance_days`). A decision after the close of *t* sets target weights of the
    equity at the open of *t + 1*, and trades there:

    - a name without an open is not traded: its position stays, its target is dropped, the leg is not scaled up again;
    - a name without a close is marked at the last price known, carried over splits and dividends;
    - a decision day without any score sells everything;
    - a delisted name is closed after the session's marks at last price x (1 + delisting return), without costs.

    Raises `InvalidInput` for shapes that do not fit or infinite scores, and `BookRuined`, naming the session, when the
    equity is gone.
    """
    tape, ranking = make_tape(market, rules), make_ranking(scores, market, decision_days)
    sessions, names = scores.shape
    records = make_records(sessions, 1)
    ledger = make_ledger(sessions, names)
    kernels.simulate(kernels.OWN, 0, 0, 1, tape, ranking, make_legs(rules), make_terms(rules), records, ledger)
    if records.ruined[0] >= 0:
        raise BookRuined(
            f"the book's equity is gone on {market.sessions[records.ruined[0]]}; "
            "hold more names, or look for a bad price on that day"
        )
    return _history(market, tape, records, ledger)


def make_tape(market: MarketData, rules: Rules) -> kernels.Tape:
    """The market as the kernels read it."""
    open_mark, close_mark = kernels.marks(market.open, market.close, market.adjustment)
    actions = (market.dividend != 0.0) | (market.split_ratio != 1.0)
    returns = np.where(np.isnan(market.delisting_return), rules.assumed_delisting_return, market.delisting_return)
    return kernels.Tape(
        open_mark=open_mark,
        close_mark=close_mark,
        tradable=~np.isnan(market.open),
        dividend=market.dividend,
        split_ratio=market.split_ratio,
        action_day=np.any(actions, axis=1),
        delisted=market.delisted,
        delisting_return=returns,
        delisting_day=np.asarray(market.delisted.any(axis=1)),
        calendar_days=np.diff(market.day_number, prepend=market.day_number[:1]).astype(np.float64),
    )


def make_ranking(scores: Floats, market: MarketData, decision_days: NDArray[np.bool_]) -> kernels.Ranking:
    """The score panel sorted by day, and the order in which its stocks were first scored."""
    shape = (len(market.sessions), len(market.symbols))
    if scores.shape != shape or decision_days.shape != shape[:1]:
        raise InvalidInput(
            f"scores of shape {scores.shape} with {decision_days.shape} decision days do not fit a market of "
            f"{shape[0]} sessions and {shape[1]} symbols; build them with MarketData.panel and rebalance_days"
        )
    panel = np.ascontiguousarray(checked_scores(scores), dtype=np.float64)
    columns, ranked, scored = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape[0], np.int64)
    kernels.rank(panel, market.by_name, columns, ranked, scored)
    is_scored = ~np.isnan(panel)
    first = np.where(is_scored.any(axis=0), is_scored.argmax(axis=0), shape[0]) if shape[0] else np.zeros(shape[1])
    name_place = np.argsort(market.by_name)
    column_of = np.lexsort((name_place, first)).astype(np.int64)
    return kernels.Ranking(
        columns=columns,
        scores=ranked,
        scored=scored,
        is_scored=is_scored,
        decision=np.ascontiguousarray(decision_days, dtype=np.bool_),
        appearance=np.argsort(column_of).astype(np.int64),
        column_of=column_of,
        appeared=np.searchsorted(np.sort(first), np.arange(shape[0]), side="right").astype(np.int64),
        day_number=market.day_number,
    )


def make_legs(rules: Rules) -> kernels.Legs:
    """The leg sizes and weighting as the kernels read them."""
    return leg_rule(rules.long, rules.short, rules.weights)


def make_terms(rules: Rules) -> kernels.Terms:
    """The costs as fractions."""
    return kernels.Terms(
        capital=float(rules.capital),
        commission=rules.commission_bps * _BASIS_POINT,
        half_spread=rules.spread_bps * _BASIS_POINT / 2.0,
        borrow=rules.borrow_bps_per_year * _BASIS_POINT,
        cash_interest=rules.cash_interest_bps_per_year * _BASIS_POINT,
    )


def make_records(sessions: int, books: int) -> kernels.Records:
    """Room for the returns of that many books."""
    return kernels.Records(
        net_return=np.zeros((sessions, books)),
        gross_return=np.zeros((sessions, books)),
        turnover=np.zeros((sessions, books)),
        ruined=np.full(books, -1, dtype=np.int64),
    )


def make_ledger(sessions: int, names: int) -> kernels.Ledger:
    """Room for what is kept of one book besides its returns."""
    return kernels.Ledger(
        equity=np.zeros(sessions),
        overnight=np.zeros(sessions),
        commission=np.zeros(sessions),
        spread=np.zeros(sessions),
        borrow=np.zeros(sessions),
        interest=np.zeros(sessions),
        shares=np.zeros((sessions, names)),
    )


def _history(market: MarketData, tape: kernels.Tape, records: kernels.Records, ledger: kernels.Ledger) -> BookHistory:
    gross_return = records.gross_return[:, 0].copy()
    # Before its first price a name has no mark, and nobody holds it.
    weights = np.where(ledger.shares == 0.0, 0.0, ledger.shares * tape.close_mark / ledger.equity[:, None])
    long_value, short_value = np.maximum(weights, 0.0), np.minimum(weights, 0.0)
    return BookHistory(
        sessions=market.sessions,
        symbols=market.symbols,
        equity=ledger.equity,
        net_return=records.net_return[:, 0].copy(),
        gross_return=gross_return,
        overnight=ledger.overnight,
        intraday=gross_return - ledger.overnight,
        commission=ledger.commission,
        spread=ledger.spread,
        borrow=ledger.borrow,
        interest=ledger.interest,
        turnover=records.turnover[:, 0].copy(),
        gross_exposure=_row_sums(long_value - short_value),
        net_exposure=_row_sums(long_value + short_value),
        longs=(ledger.shares > 0.0).sum(axis=1),
        shorts=(ledger.shares < 0.0).sum(axis=1),
        shares=ledger.shares,
        weights=weights,
    )


def _row_sums(values: Floats) -> Floats:
    """Sums over each row from left to right: a later column of zeros changes no bit (NumPy's pairwise sum may)."""
    return np.cumsum(values, axis=1)[:, -1] if values.shape[1] else np.zeros(len(values))


def _require(fine: bool, name: str, value: object, allowed: str) -> None:
    if not fine:
        raise InvalidInput(f"{name} is {value!r}; allowed is {allowed}")
