"""Small invented markets with everything that can happen to a stock, and a slow, obvious back-test of them.

The back-test here is the independent oracle of the engine: exact decimals, dictionaries, one loop, straight from the
long frames. No test lives here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext

import numpy as np
import polars as pl

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA
from stockpicker_dagster.research.backtest.engine import Rules
from stockpicker_dagster.research.backtest.market_data import MarketData, market_data
from stockpicker_dagster.research.rebalancing import rebalance_days

CALENDAR = trading_calendar("XNYS")
NAN = float("nan")


@dataclass(frozen=True)
class World:
    """A market as stored, and a score panel for it as a long frame (`symbol`, `date`, `score`)."""

    sessions: list[date]
    prices: pl.DataFrame
    delistings: pl.DataFrame
    scores: pl.DataFrame

    def until(self, count: int) -> "World":
        """The world as it was known after the close of session number `count - 1`."""
        known = pl.col("date") <= self.sessions[count - 1]
        return World(
            self.sessions[:count],
            self.prices.filter(known),
            self.delistings.filter(known),
            self.scores.filter(known),
        )

    def market(self) -> MarketData:
        return market_data(self.prices, self.delistings, self.sessions)

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
    return World(
        days,
        pl.concat(stocks).sort("date", "symbol"),
        pl.DataFrame(delistings, schema=DELISTINGS_SCHEMA, orient="row"),
        pl.DataFrame(scores, schema={"symbol": pl.String, "date": pl.Date, "score": pl.Float64}, orient="row"),
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
                1000.0,
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


def slow_backtest(world: World, rules: Rules) -> list[dict[str, float]]:
    """One dictionary a session with the figures of `BookHistory`, and `shares` by symbol."""
    with localcontext() as context:
        context.prec = 40
        return _slow_backtest(world, rules)


def _exact(value: float) -> Decimal:
    return Decimal(repr(value))


def _slow_backtest(world: World, rules: Rules) -> list[dict[str, float]]:
    rows = {(row["date"], row["symbol"]): row for row in world.prices.iter_rows(named=True)}
    ends: dict[date, dict[str, float | None]] = {}
    for row in world.delistings.iter_rows(named=True):
        ends.setdefault(max(row["date"], row["last_session"]), {})[row["symbol"]] = row["return"]
    scores: dict[date, dict[str, float]] = {}
    for symbol, day, score in world.scores.iter_rows():
        scores.setdefault(day, {})[symbol] = score
    decisive = world.decisions(rules)
    bps = Decimal(1) / 10_000

    cash = equity = _exact(rules.capital)
    shares: dict[str, Decimal] = {}
    marks: dict[str, Decimal] = {}
    target: dict[str, Decimal] | None = None
    short_value = Decimal(0)
    history: list[dict[str, float]] = []
    for number, day in enumerate(world.sessions):
        before = equity
        years = Decimal((day - world.sessions[number - 1]).days) / 365 if number else Decimal(0)
        borrow = short_value * bps * _exact(rules.borrow_bps_per_year) * years
        interest = cash * bps * _exact(rules.cash_interest_bps_per_year) * years
        # Overnight: events, then the opening prices.
        today = {symbol: rows[day, symbol] for (row_day, symbol) in rows if row_day == day}
        for symbol, row in today.items():
            if symbol in shares:
                cash += shares[symbol] * _exact(row["dividend"])
                shares[symbol] *= _exact(row["split_ratio"])
            if symbol in marks:
                marks[symbol] /= _exact(row["adjustment"])
            if row["open"] is not None:
                marks[symbol] = _exact(row["open"])
        equity_at_open = cash + sum((shares[symbol] * marks[symbol] for symbol in shares), Decimal(0))
        overnight = equity_at_open - before
        cash += interest - borrow
        equity_at_open += interest - borrow
        # Trades.
        traded = Decimal(0)
        if target is not None:
            for symbol in set(shares) | set(target):
                if symbol in today and today[symbol]["open"] is not None:
                    price = _exact(today[symbol]["open"])
                    wanted = target.get(symbol, Decimal(0)) * equity_at_open / price
                    cash -= (wanted - shares.get(symbol, Decimal(0))) * price
                    traded += abs(wanted - shares.get(symbol, Decimal(0))) * price
                    shares[symbol] = wanted
        commission = traded * bps * _exact(rules.commission_bps)
        spread = traded * bps * _exact(rules.spread_bps) / 2
        cash -= commission + spread
        # Close.
        for symbol, row in today.items():
            if row["close"] is not None:
                marks[symbol] = _exact(row["close"])
        for symbol, value in ends.get(day, {}).items():
            if symbol in shares:
                paid = rules.assumed_delisting_return if value is None else value
                cash += shares.pop(symbol) * marks[symbol] * (1 + _exact(paid))
        shares = {symbol: count for symbol, count in shares.items() if count}
        values = {symbol: shares[symbol] * marks[symbol] for symbol in shares}
        equity = cash + sum(values.values(), Decimal(0))
        short_value = -sum((value for value in values.values() if value < 0), Decimal(0))
        gross_profit = equity - before + commission + spread + borrow - interest
        history.append(
            {
                "equity": float(equity),
                "net_return": float(equity / before - 1),
                "gross_return": float(gross_profit / before),
                "overnight": float(overnight / before),
                "intraday": float((gross_profit - overnight) / before),
                "commission": float(commission / before),
                "spread": float(spread / before),
                "borrow": float(borrow / before),
                "interest": float(interest / before),
                "turnover": float(traded / before),
                "gross_exposure": float(sum(abs(value) for value in values.values()) / equity),
                "net_exposure": float(sum(values.values()) / equity),
                "longs": float(sum(value > 0 for value in values.values())),
                "shorts": float(sum(value < 0 for value in values.values())),
                **{f"shares of {symbol}": float(count) for symbol, count in shares.items()},
            }
        )
        target = _slow_target(scores.get(day, {}), rules) if decisive[number] else None
    return history


def _slow_target(scores: dict[str, float], rules: Rules) -> dict[str, Decimal]:
    """Best first, equal scores by name; whole numbers of names only, both legs shrunk if they overlap."""
    ranked = sorted(scores, key=lambda symbol: (-scores[symbol], symbol))
    longs, shorts = int(rules.long), int(rules.short)
    if longs + shorts > len(ranked):
        if len(ranked) < 2 and shorts:
            return {}
        both, count = longs + shorts, len(ranked)
        longs, shorts = max(1, count * longs // both), max(1 if shorts else 0, count * shorts // both)
        longs, shorts = (longs, min(shorts, count - longs)) if longs == 1 else (min(longs, count - shorts), shorts)
    values = sorted(_exact(score) for score in scores.values())
    median = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2 if values else Decimal(0)
    target: dict[str, Decimal] = {}
    for side, leg in ((1, ranked[:longs]), (-1, ranked[len(ranked) - shorts :] if shorts else [])):
        sizes = {symbol: abs(_exact(scores[symbol]) - median) for symbol in leg}
        if rules.weights == "equal" or not sum(sizes.values()):
            sizes = dict.fromkeys(leg, Decimal(1))
        target |= {symbol: side * size / sum(sizes.values()) for symbol, size in sizes.items()}
    return target
