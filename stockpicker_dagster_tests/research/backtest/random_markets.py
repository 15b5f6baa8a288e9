"""Small invented markets with everything that can happen to a stock. No test lives here."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA
from stockpicker_dagster.research.backtest.engine import Rules
from stockpicker_dagster.research.backtest.market_data import MarketData, market_data
from stockpicker_dagster.research.rebalancing import rebalance_days

CALENDAR = trading_calendar("XNYS")
NAN = float("nan")
SECTORS = ["Energy", "Banks", None, "Energy"]


@dataclass(frozen=True)
class World:
    """A market as stored, and a score panel for it as a long frame (`symbol`, `date`, `score`)."""

    sessions: list[date]
    prices: pl.DataFrame
    delistings: pl.DataFrame
    scores: pl.DataFrame
    sectors: pl.DataFrame
    """`symbol`, `date`, `sector` of every symbol on every session; some unknown, some that change."""
    borrow_rates: pl.DataFrame
    """`symbol`, `date`, `bps_per_year`, as `market_data` takes them."""
    styles: pl.DataFrame
    """`symbol`, `date`, `size` and `value` of most symbols on most sessions."""

    def until(self, count: int) -> "World":
        """The world as it was known after the close of session number `count - 1`."""
        known = pl.col("date") <= self.sessions[count - 1]
        return World(
            self.sessions[:count],
            self.prices.filter(known),
            self.delistings.filter(known),
            self.scores.filter(known),
            self.sectors.filter(known),
            self.borrow_rates.filter(known),
            self.styles.filter(known),
        )

    def market(self) -> MarketData:
        """Prices alone, as most rules need it."""
        return market_data(self.prices, self.delistings, self.sessions)

    def full_market(self) -> MarketData:
        """With everything that any rule can ask for."""
        return market_data(
            self.prices,
            self.delistings,
            self.sessions,
            trailing=True,
            sectors=self.sectors,
            borrow_rates=self.borrow_rates,
            styles=self.styles,
        )

    def panel(self, market: MarketData) -> np.ndarray:
        return market.panel(self.scores, "score")

    def decisions(self, rules: Rules) -> np.ndarray:
        return rebalance_days(self.sessions, rules.rebalance, CALENDAR, rules.rebalance_offset)


def random_world(seed: int, sessions: int = 60, names: int = 8) -> World:
    """Splits, dividends, both on a day, halts, missing opens and closes, late listings, delistings; ties in scores."""
    rng = np.random.default_rng(seed)
    days = CALENDAR.sessions(date(2019, 3, 1), date(2021, 1, 1))[:sessions]
    stocks, delistings, scores = [], [], []
    for number in range(names):
        symbol = f"{'ZYXWVUTSRQPONMLK'[number % 16]}{number:02d}"
        first = int(rng.integers(5, sessions // 2)) if rng.random() < 0.3 else 0
        last = int(rng.integers(sessions // 2, sessions - 1)) if rng.random() < 0.4 else sessions - 1
        stocks.append(_stock(rng, symbol, days[first : last + 1]))
        if last < sessions - 1:
            known = days[min(sessions - 1, max(0, last + int(rng.integers(-1, 4))))]
            value = None if rng.random() < 0.5 else float(rng.uniform(-1.0, 0.2))
            delistings.append((symbol, known, days[last], "delisted", value, known))
        scores += [
            (symbol, day, float(np.round(rng.normal(), 1))) for day in days[first : last + 1] if rng.random() < 0.9
        ]
    symbols = sorted({row[0] for row in scores})
    sectors = [
        (symbol, day, SECTORS[int(place + rng.integers(2) * (day > days[sessions // 2])) % 4])
        for place, symbol in enumerate(symbols)
        for day in days
    ]
    rates = [
        (symbol, days[int(rng.integers(sessions))], float(rng.uniform(0, 3000)) if rng.random() < 0.8 else None)
        for symbol in symbols[::3]
        for _ in range(2)
    ]
    draw = np.random.default_rng([seed, 1])
    styles = [
        (symbol, day, float(draw.normal()), float(draw.normal()) if draw.random() < 0.9 else None)
        for symbol in symbols
        for day in days
        if draw.random() < 0.95
    ]
    return World(
        days,
        pl.concat(stocks).sort("date", "symbol"),
        pl.DataFrame(delistings, schema=DELISTINGS_SCHEMA, orient="row"),
        pl.DataFrame(scores, schema={"symbol": pl.String, "date": pl.Date, "score": pl.Float64}, orient="row"),
        pl.DataFrame(sectors, schema={"symbol": pl.String, "date": pl.Date, "sector": pl.String}, orient="row"),
        pl.DataFrame(
            rates, schema={"symbol": pl.String, "date": pl.Date, "bps_per_year": pl.Float64}, orient="row"
        ).unique(["symbol", "date"], keep="first", maintain_order=True),
        pl.DataFrame(
            styles,
            schema={"symbol": pl.String, "date": pl.Date, "size": pl.Float64, "value": pl.Float64},
            orient="row",
        ),
    )


def _stock(rng: np.random.Generator, symbol: str, days: Sequence[date]) -> pl.DataFrame:
    rows = []
    price, previous = float(rng.uniform(5, 200)), None
    for row, day in enumerate(days):
        price *= float(np.exp(rng.normal(0, 0.02)))
        if row and rng.random() < 0.05:
            continue
        split = float(rng.choice([1.0, 2.0, 0.5, 1.037], p=[0.9, 0.05, 0.03, 0.02])) if previous else 1.0
        dividend = float(rng.uniform(0.0, 0.05)) * previous if previous and rng.random() < 0.1 else 0.0
        adjustment = split / (1.0 - dividend / previous) if previous else 1.0
        price /= adjustment
        opened = price * float(np.exp(rng.normal(0, 0.01)))
        close = None if row and rng.random() < 0.03 else price
        rows.append(
            (
                symbol,
                day,
                None if row and rng.random() < 0.03 else opened,
                max(opened, price),
                min(opened, price),
                close,
                0.0 if row and rng.random() < 0.03 else float(rng.integers(1, 40)) * 1000.0,
                dividend,
                split,
                adjustment,
                None,
                "test",
            )
        )
        previous = price if close is not None else rows[-1][2] or (previous or price) / adjustment
    return pl.DataFrame(rows, schema=PRICES_SCHEMA, orient="row")


def quiet_market(opens: np.ndarray, closes: np.ndarray | None = None, start: date = date(2019, 3, 1)) -> MarketData:
    """A market without events from prices `(T, N)`; symbols are A, B, C, ... and the close is the open if not given."""
    sessions, names = opens.shape
    days = CALENDAR.sessions(start, date(2049, 1, 1))[:sessions]
    return MarketData(
        sessions=tuple(days),
        symbols=tuple(f"{chr(65 + number // 26)}{chr(65 + number % 26)}" for number in range(names)),
        open=opens.astype(float),
        close=(opens if closes is None else closes).astype(float),
        dividend=np.zeros(opens.shape),
        split_ratio=np.ones(opens.shape),
        adjustment=np.ones(opens.shape),
        delisted=np.zeros(opens.shape, dtype=bool),
        delisting_return=np.full(opens.shape, NAN),
    )


def slow_draw(seed: int, book: int, counter: int, below: int) -> int:
    """The draw of `kernels` in Python's own integers."""
    key = _splitmix64(_splitmix64(seed) ^ book)
    return _splitmix64(key ^ _splitmix64(counter)) % below


def _splitmix64(state: int) -> int:
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)
