"""The simulated market: an invented exchange for demonstrations and tests, labelled as such in everything made from it.

Returns follow a market, a sector and two style factors and a stock's own moves, all with Student-t tails and GARCH(1,1)
volatility (Bollerslev, 1986), split into an overnight and an intraday part; stocks pay dividends, split, list, halt and
delist. A small, stated part of each stock's own return is predictable (`PlantedAlpha`), so that a pipeline can be
held against a known truth. Every session draws from its own counter-based stream (Salmon et al., 2011, Philox), so that
a longer simulation begins with exactly the bytes of a shorter one.
"""

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA
from stockpicker_dagster.market.sources import Basis, Fetched, Window
from stockpicker_dagster.market.universes import SPELLS_SCHEMA, Universe

Vector = NDArray[np.float64]

CALENDAR = "XNYS"
CAVEAT = "simulated market"
SECTORS = (
    "Communication Services",
    "Consumer Discretionary",
    "Consumer Staples",
    "Energy",
    "Financials",
    "Health Care",
    "Industrials",
    "Information Technology",
    "Materials",
    "Real Estate",
    "Utilities",
)
"""The eleven sectors of the Global Industry Classification Standard."""

WINDOW = timedelta(hours=24)
"""How long a proposal on simulated prices stays open."""

# Daily standard deviations, as fractions, and shapes of the return process.
_MARKET_VOLATILITY = 0.009
_MARKET_DRIFT = 0.0003
_SECTOR_VOLATILITY = 0.005
_STYLE_VOLATILITY = 0.003
_STYLES = 2
_OVERNIGHT = 0.3
"""Share of a session's variance, drift and alpha that comes between the previous close and the open."""
_TAIL_FREEDOM = 5.0
"""Degrees of freedom of the Student-t innovations."""
_GARCH_NEWS, _GARCH_PERSISTENCE = 0.08, 0.90
_GARCH_CEILING = 25.0
"""Conditional variance stays below this multiple of its mean, so that no simulated week is absurd."""
_FLOOR, _CEILING = -0.6, 1.5
"""Bounds of one overnight or intraday return."""

# Hazards per stock and session.
_BANKRUPTCY, _MERGER, _LISTING, _HALT = 0.00008, 0.00012, 0.025, 0.0005
_SPLIT, _REVERSE_SPLIT = 0.02, 0.1
_QUARTER = 63
_DIVIDEND_NOTICE, _SPLIT_NOTICE = 15, 10
"""Sessions between the declaration of an event and its ex-date."""
_LARGEST_DIVIDEND = 0.2
"""A declared dividend above this fraction of the price before its ex-date is cancelled: the company crashed."""

_NEVER = np.iinfo(np.int64).max
_SESSION_STREAM, _STOCK_STREAM = 0, 1
_FACTOR_VOLATILITIES = np.array(
    [_MARKET_VOLATILITY, *[_SECTOR_VOLATILITY] * len(SECTORS), *[_STYLE_VOLATILITY] * _STYLES]
)


@dataclass(frozen=True)
class Characteristic:
    """One observable figure of a stock after the close of session t that predicts its return of session t + 1.

    `coefficient` is the expected own return of that session, as a fraction, per cross-sectional standard deviation.
    """

    name: str
    formula: str
    coefficient: float


@dataclass(frozen=True)
class Interaction:
    """Two characteristics, by name, whose product predicts: `coefficient` is per product of their standard scores.

    No weighted sum of the two can see it.
    """

    first: str
    second: str
    coefficient: float


@dataclass(frozen=True)
class PlantedAlpha:
    """What is predictable in a simulated market, exactly: nothing else is.

    The expected own return of session t + 1 is the sum of coefficient x z over the characteristics, where z is the
    cross-sectional standard score after the close of t among listed stocks, clipped at 3 (0 where the history is too
    short), plus that of coefficient x z1 x z2 over the interactions. `expected_returns` of the market evaluates it.
    Market, sector and style factors pay no premium but the market's drift, `market_drift` a session.
    """

    characteristics: tuple[Characteristic, ...]
    interactions: tuple[Interaction, ...] = ()
    market_drift: float = _MARKET_DRIFT

    def __post_init__(self) -> None:
        """Raises `InvalidInput` for a characteristic that the market does not know."""
        names = [each.name for each in self.characteristics]
        names += [name for each in self.interactions for name in (each.first, each.second)]
        if unknown := sorted(set(names) - set(CHARACTERISTICS)):
            raise InvalidInput(f"characteristics {unknown} are unknown; known: {', '.join(CHARACTERISTICS)}")

    @property
    def daily_spread(self) -> float:
        """Cross-sectional standard deviation of expected returns per session, were characteristics uncorrelated."""
        sizes = [each.coefficient for each in self.characteristics] + [each.coefficient for each in self.interactions]
        return float(np.sqrt(sum(size**2 for size in sizes)))

    def __str__(self) -> str:
        parts = [
            f"{1e4 * characteristic.coefficient:+.1f} bp x {characteristic.name} ({characteristic.formula})"
            for characteristic in self.characteristics
        ]
        parts += [f"{1e4 * each.coefficient:+.1f} bp x {each.first} x {each.second}" for each in self.interactions]
        told = "; ".join(parts) or "nothing"
        return f"expected own return of the next session, per standard deviation: {told}; about {self._in_words()}"

    def _in_words(self) -> str:
        return f"{1e4 * self.daily_spread:.1f} bp a session between an average stock and one a deviation better"


CHARACTERISTICS = {
    "reversal": "log total return over 5 sessions",
    "momentum": "log total return from 252 to 21 sessions ago",
    "volatility": "standard deviation of daily log total returns over 60 sessions",
}
"""The characteristics that returns can be made to follow, by name, with their formulas."""
_REVERSAL, _MOMENTUM, _SKIP, _VOLATILITY = 5, 252, 21, 60


def planted(market_drift: float = _MARKET_DRIFT, **coefficients: float) -> PlantedAlpha:
    """An alpha of so much of each characteristic, such as `planted(reversal=-3e-4)`; of none of them, there is none."""
    characteristics = tuple(
        Characteristic(name, CHARACTERISTICS.get(name, ""), coefficient) for name, coefficient in coefficients.items()
    )
    return PlantedAlpha(characteristics, market_drift=market_drift)


PLANTED_ALPHA = planted(reversal=-3.0e-4, momentum=3.5e-4, volatility=-2.5e-4)
"""That of every simulated market, unless it is given another."""
NONLINEAR_ALPHA = PlantedAlpha((), (Interaction("reversal", "volatility", -1.0e-3),))
"""Stocks that fell rebound where they are volatile, and go on falling where they are calm: a line sees nothing."""
NO_ALPHA = planted(market_drift=0.0)
"""Nothing at all can be predicted, and no stock earns more than another for carrying more of the market."""


class SimulatedMarket:
    """A price source that invents its prices; the same arguments give the same market, whenever they are asked.

    `start` is the first session, `stocks` how many are listed at a time, about; `seed` fixes everything but what is
    planted, `alpha`. Symbols are `SIM001`, `SIM002`, ..., in order of listing. Prices are as traded, in cents; volume
    is in whole shares.
    """

    kind = "simulated"
    basis: Basis = "as_traded"
    caveat: str | None = CAVEAT

    def __init__(
        self,
        name: str = "simulated",
        start: date = date(2020, 11, 2),
        stocks: int = 100,
        seed: int = 7,
        alpha: PlantedAlpha = PLANTED_ALPHA,
    ) -> None:
        if not trading_calendar(CALENDAR).is_session(start):
            raise InvalidInput(
                f"the simulated market cannot start on {start}, which is no session; "
                f"the next one is {trading_calendar(CALENDAR).next_session(start)}"
            )
        if not 10 <= stocks <= 5000:
            raise InvalidInput(f"a simulated market of {stocks} stocks is not possible; choose from 10 to 5000")
        if seed < 0:
            raise InvalidInput(f"the seed {seed} is negative; choose 0 or more")
        self.name = name
        self.start = start
        self.stocks = stocks
        self.seed = seed
        self._simulation = _Simulation(start, stocks, seed, alpha)

    def __repr__(self) -> str:
        return f"SimulatedMarket({self.name!r}, start={self.start}, stocks={self.stocks}, seed={self.seed})"

    def fetch(self, symbols: Sequence[str] | None, sessions: Sequence[date]) -> Fetched:
        """See `PriceSource.fetch`. Nothing is ever quarantined; a session before `start` raises `InvalidInput`."""
        days = [self._simulation.day(session) for session in sessions]
        prices = _rows(days, self.name)
        delistings = pl.DataFrame(
            [delisting for day in days for delisting in day.delistings], schema=DELISTINGS_SCHEMA, orient="row"
        )
        if symbols is not None:
            wanted = pl.col("symbol").is_in(list(symbols))
            prices, delistings = prices.filter(wanted), delistings.filter(wanted)
        prices, delistings = prices.sort("date", "symbol"), delistings.sort("date", "symbol")
        return Fetched(prices, delistings, pl.DataFrame(schema=QUARANTINE_SCHEMA))

    def available_through(self) -> date | None:
        """None: any session can be simulated."""
        return None

    def venue(self) -> "SimulatedVenue":
        """The venue whose clock starts whenever it is asked."""
        return SimulatedVenue(self)

    def universe(self, through: date) -> Universe:
        """Every stock listed up to the session `through`, with its sector, as known after that session's close."""
        if through < self.start:
            raise InvalidInput(f"{through} precedes the simulated market, which starts on {self.start}")
        through = trading_calendar(CALENDAR).previous_session(through + timedelta(days=1))
        self._simulation.day(through)
        spells = [
            (
                stock.symbol,
                stock.first_session,
                stock.end if stock.end and stock.end <= through else None,
                stock.sector,
                None,
            )
            for stock in self._simulation.listed
            if stock.first_session <= through
        ]
        frame = pl.DataFrame(spells, schema=SPELLS_SCHEMA, orient="row").sort("symbol", "start")
        return Universe(self.name, True, frame, CAVEAT)

    def planted_alpha(self) -> PlantedAlpha:
        """What is predictable in this market, and its true size."""
        return self._simulation.planted

    def expected_returns(self, session: date) -> dict[str, float]:
        """The predictable part of each listed stock's return of the next session, known after the close of `session`.

        As a fraction per session, in `PlantedAlpha`'s sense: the best score that anyone could give.
        """
        day = self._simulation.day(session)
        return {day.symbols[i]: float(day.alpha[i]) for i in np.argsort(day.symbols)}


@lru_cache(maxsize=8)
def simulated_market(name: str, start: date, stocks: int = 100, seed: int = 7) -> SimulatedMarket:
    """The one `SimulatedMarket` of these arguments in this process, so that what was simulated once is kept."""
    return SimulatedMarket(name, start, stocks, seed)


@dataclass(frozen=True)
class SimulatedVenue:
    """The simulated exchange: its next session opens, at prices withheld so far, whenever a proposal is decided."""

    market: SimulatedMarket
    simulated: bool = True
    exchange: str = CALENDAR

    def window(self, session: date, latest_stored: date, now: datetime) -> Window | None:
        """24 hours from `now` for a plan of the last stored session; None for any earlier one."""
        return Window(now, now + WINDOW) if session == latest_stored else None

    def trade_session(self, session: date) -> date:
        """The next session of the calendar."""
        return trading_calendar(CALENDAR).next_session(session)

    def opens(self, session: date, symbols: Collection[str]) -> dict[str, Decimal] | None:
        """The simulated opens of `session`, in cents; halted and delisted stocks are left out. Never None."""
        prices = self.market.fetch(list(symbols), [session]).prices
        return {symbol: Decimal(f"{price:.2f}") for symbol, price in prices.select("symbol", "open").iter_rows()}


@dataclass
class _Event:
    """A declared dividend (currency per share) or split (new shares per old)."""

    amount: float
    known_at: date


@dataclass
class _Stock:
    """One listed company: what was drawn when it listed, and its pending events."""

    symbol: str
    first_session: date
    sector_index: int
    market_beta: float
    sector_beta: float
    style_betas: Vector
    volatility: float
    first_price: float
    shares: float
    turnover: float
    dividend_yield: float
    dividend_phase: int
    dividend: _Event | None = None
    split: _Event | None = None
    end: date | None = None

    @property
    def sector(self) -> str:
        return SECTORS[self.sector_index]

    @classmethod
    def drawn(cls, number: int, seed: int, first_session: date) -> "_Stock":
        """The stock of that number, from its own stream."""
        rng = _stream(seed, _STOCK_STREAM, number)
        pays = rng.random() < 0.6
        return cls(
            symbol=f"SIM{number:03d}",
            first_session=first_session,
            sector_index=(number - 1) % len(SECTORS),
            market_beta=rng.uniform(0.6, 1.4),
            sector_beta=rng.uniform(0.6, 1.4),
            style_betas=rng.standard_normal(_STYLES),
            volatility=rng.uniform(0.010, 0.024),
            first_price=round(float(np.clip(40.0 * np.exp(0.6 * rng.standard_normal()), 8.0, 250.0)), 2),
            shares=float(np.round(2e8 * np.exp(rng.standard_normal()))),
            turnover=float(0.005 * np.exp(0.4 * rng.standard_normal())),
            dividend_yield=float(rng.uniform(0.01, 0.04)) if pays else 0.0,
            dividend_phase=int(rng.integers(_QUARTER)),
        )


@dataclass(frozen=True)
class _Day:
    """One simulated session, stock by stock: which of them traded and how, their alpha, and what became known."""

    session: date
    symbols: list[str]
    traded: NDArray[np.bool_]
    columns: dict[str, Vector]
    known_at: list[date | None]
    alpha: Vector
    delistings: list[tuple[str, date, date, str, float, date]]


@dataclass
class _Simulation:
    """The state of the market after the last simulated session. Each slot holds a listed stock, or waits for one."""

    start: date
    slots: int
    seed: int
    planted: PlantedAlpha
    days: list[_Day] = field(default_factory=list)
    listed: list[_Stock] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._calendar = trading_calendar(CALENDAR)
        self._first_index = self._calendar.index(self.start)
        self._in_slot: list[_Stock | None] = [None] * self.slots
        self._close = np.full(self.slots, np.nan)
        self._variance = np.ones(self.slots)
        self._factor_variance = np.ones(1 + len(SECTORS) + _STYLES)
        self._betas = np.zeros((self.slots, 1 + len(SECTORS) + _STYLES))
        self._volatility = np.zeros(self.slots)
        self._alpha = np.zeros(self.slots)
        self._shares = np.zeros(self.slots)
        self._turnover = np.zeros(self.slots)
        # Positions, counted from the start, of the ex-dates of declared events.
        self._dividend_index = np.full(self.slots, _NEVER)
        self._split_index = np.full(self.slots, _NEVER)
        # Log total-return indices after the last sessions, newest last; NaN before a stock listed.
        self._history = np.full((_MOMENTUM + 1, self.slots), np.nan)
        self._leaving: list[tuple[int, str, float]] = []

    def day(self, session: date) -> _Day:
        """The simulated session, simulating up to it if need be."""
        index = self._calendar.index(session) - self._first_index
        if index < 0:
            raise InvalidInput(f"{session} precedes the simulated market, which starts on {self.start}")
        with self._lock:
            while len(self.days) <= index:
                self.days.append(self._next_day())
        return self.days[index]

    def _next_day(self) -> _Day:
        index = len(self.days)
        session = self._calendar.offset(self.start, index)
        rng = _stream(self.seed, _SESSION_STREAM, index)
        delistings = self._delist(session)
        new = self._list_new(rng.random(self.slots) < _LISTING if index else np.ones(self.slots, bool), session)
        occupied = np.array([stock is not None for stock in self._in_slot])
        traded = occupied & ((rng.random(self.slots) >= _HALT) | new)
        dividend, split_ratio, known_at = self._events_due(index, traded & ~new)
        columns = self._trade(rng, dividend, split_ratio, new)
        self._remember(columns, traded, occupied)
        day = _Day(
            session=session,
            symbols=[stock.symbol for stock in self._in_slot if stock],
            traded=traded[occupied],
            columns={name: values[occupied] for name, values in columns.items()},
            known_at=[known_at.get(slot) for slot in np.flatnonzero(occupied).tolist()],
            alpha=self._alpha[occupied],
            delistings=delistings,
        )
        self._declare_dividends(index, session, traded)
        self._declare_splits(index, session, traded, rng.random(self.slots), rng.random(self.slots))
        self._decide_leaving(session, traded & ~new, rng.random(self.slots), rng.random(self.slots))
        return day

    def _delist(self, session: date) -> list[tuple[str, date, date, str, float, date]]:
        """Empties the slots whose stocks traded for the last time on the session before."""
        delistings = []
        for slot, reason, final_return in self._leaving:
            stock = self._in_slot[slot]
            assert stock is not None
            last_session = self._calendar.previous_session(session)
            delistings.append((stock.symbol, session, last_session, reason, final_return, session))
            self._in_slot[slot] = None
        self._leaving = []
        return delistings

    def _list_new(self, drawn: NDArray[np.bool_], session: date) -> NDArray[np.bool_]:
        """Fills empty slots where `drawn`; returns which slots hold a stock on its first session."""
        new = np.array([stock is None for stock in self._in_slot]) & drawn
        for slot in np.flatnonzero(new):
            stock = _Stock.drawn(len(self.listed) + 1, self.seed, session)
            self.listed.append(stock)
            self._in_slot[slot] = stock
            self._close[slot] = stock.first_price
            self._variance[slot] = 1.0
            self._volatility[slot] = stock.volatility
            self._alpha[slot] = 0.0
            self._betas[slot] = 0.0
            self._betas[slot, 0] = stock.market_beta
            self._betas[slot, 1 + stock.sector_index] = stock.sector_beta
            self._betas[slot, 1 + len(SECTORS) :] = stock.style_betas
            self._history[:, slot] = np.nan
            self._history[-1, slot] = 0.0
            self._shares[slot] = stock.shares
            self._turnover[slot] = stock.turnover
        return new

    def _events_due(self, index: int, eligible: NDArray[np.bool_]) -> tuple[Vector, Vector, dict[int, date]]:
        """(dividend, split ratio, slot -> known at) of events whose ex-date is today; a halted stock's wait."""
        dividends, split_ratios = np.zeros(self.slots), np.ones(self.slots)
        known_at: dict[int, date] = {}
        due = eligible & ((self._dividend_index <= index) | (self._split_index <= index))
        for slot in np.flatnonzero(due).tolist():
            stock = self._in_slot[slot]
            assert stock is not None
            if stock.dividend and self._dividend_index[slot] <= index:
                if stock.dividend.amount <= _LARGEST_DIVIDEND * self._close[slot]:
                    dividends[slot] = stock.dividend.amount
                    known_at[slot] = stock.dividend.known_at
                stock.dividend, self._dividend_index[slot] = None, _NEVER
            if stock.split and self._split_index[slot] <= index:
                split_ratios[slot] = stock.split.amount
                known_at[slot] = max(stock.split.known_at, known_at.get(slot, date.min))
                self._shares[slot] *= stock.split.amount
                if stock.dividend:
                    stock.dividend.amount = round(stock.dividend.amount / stock.split.amount, 4)
                stock.split, self._split_index[slot] = None, _NEVER
        return dividends, split_ratios, known_at

    def _trade(
        self, rng: np.random.Generator, dividend: Vector, split_ratio: Vector, new: NDArray[np.bool_]
    ) -> dict[str, Vector]:
        """The prices and volumes of the session in every slot, and the adjustment from the close before."""
        overnight, intraday, surprise = self._returns(rng)
        gross = np.where(new, 1.0, 1.0 + overnight)
        opens = _cents((self._close - dividend) / split_ratio * gross)
        closes = _cents(opens * (1.0 + intraday))
        reach = 0.35 * self._volatility * np.sqrt(self._variance) * np.abs(rng.standard_normal((2, self.slots)))
        activity = np.exp(0.3 * rng.standard_normal(self.slots) + 0.15 * np.minimum(np.abs(surprise), 6.0))
        volume = np.round(self._shares * self._turnover * np.sqrt(self._variance) * activity)
        return {
            "open": opens,
            "high": _cents(np.maximum(opens, closes) * (1.0 + reach[0])),
            "low": _cents(np.minimum(opens, closes) / (1.0 + reach[1])),
            "close": closes,
            "volume": np.maximum(volume, 100.0),
            "dividend": dividend,
            "split_ratio": split_ratio,
            "adjustment": np.where(new, 1.0, split_ratio / (1.0 - dividend / self._close)),
        }

    def _returns(self, rng: np.random.Generator) -> tuple[Vector, Vector, Vector]:
        """(overnight return, intraday return, own surprise in conditional standard deviations) of every slot."""
        shares = np.sqrt([[_OVERNIGHT], [1.0 - _OVERNIGHT]])
        factors = shares * _unit_student(rng, self._factor_variance.size)
        own = shares * _unit_student(rng, self.slots)
        parts = []
        for share, factor, surprise in zip((_OVERNIGHT, 1.0 - _OVERNIGHT), factors, own, strict=True):
            factor_returns = _FACTOR_VOLATILITIES * np.sqrt(self._factor_variance) * factor
            factor_returns[0] += share * self.planted.market_drift
            common = (self._betas * factor_returns).sum(axis=1)
            own_return = self._volatility * np.sqrt(self._variance) * surprise
            parts.append(np.clip(common + own_return + share * self._alpha, _FLOOR, _CEILING))
        self._factor_variance = _next_variance(self._factor_variance, factors.sum(axis=0))
        self._variance = _next_variance(self._variance, own.sum(axis=0))
        return parts[0], parts[1], own.sum(axis=0)

    def _remember(self, columns: dict[str, Vector], traded: NDArray[np.bool_], occupied: NDArray[np.bool_]) -> None:
        """Takes the closes of the session into the state, and derives the alpha of the next session from them."""
        growth = np.where(traded, np.log(columns["close"] * columns["adjustment"] / self._close), 0.0)
        self._close = np.where(traded, columns["close"], self._close)
        self._history[:-1] = self._history[1:]
        self._history[-1] += growth
        history = self._history
        figures = {
            "reversal": history[-1] - history[-1 - _REVERSAL],
            "momentum": history[-1 - _SKIP] - history[-1 - _MOMENTUM],
            "volatility": np.diff(history[-1 - _VOLATILITY :], axis=0).std(axis=0),
        }
        scores = {name: _standard_score(np.where(occupied, values, np.nan)) for name, values in figures.items()}
        self._alpha = np.zeros(self.slots)
        for characteristic in self.planted.characteristics:
            self._alpha += characteristic.coefficient * scores[characteristic.name]
        for pair in self.planted.interactions:
            self._alpha += pair.coefficient * scores[pair.first] * scores[pair.second]

    def _declare_dividends(self, index: int, session: date, traded: NDArray[np.bool_]) -> None:
        for slot in np.flatnonzero(traded & (self._dividend_index == _NEVER)):
            stock = self._in_slot[slot]
            assert stock is not None
            amount = round(stock.dividend_yield / 4.0 * float(self._close[slot]), 2)
            if index % _QUARTER == stock.dividend_phase and amount > 0:
                stock.dividend = _Event(amount, session)
                self._dividend_index[slot] = index + _DIVIDEND_NOTICE

    def _declare_splits(
        self, index: int, session: date, traded: NDArray[np.bool_], declares: Vector, joins: Vector
    ) -> None:
        """High prices are split 3:2, 2:1 or 3:1, prices below two 1:10, half of the time with the next dividend."""
        dear = (self._close > 90.0) & (declares < _SPLIT)
        cheap = (self._close < 2.0) & (declares < _REVERSE_SPLIT)
        for slot in np.flatnonzero(traded & (dear | cheap) & (self._split_index == _NEVER)):
            stock = self._in_slot[slot]
            assert stock is not None
            price = self._close[slot]
            ratio = 0.1 if price < 2.0 else 1.5 if price < 105.0 else 2.0 if price < 200.0 else 3.0
            stock.split = _Event(ratio, session)
            with_dividend = stock.dividend is not None and joins[slot] < 0.5
            self._split_index[slot] = self._dividend_index[slot] if with_dividend else index + _SPLIT_NOTICE

    def _decide_leaving(self, session: date, eligible: NDArray[np.bool_], decides: Vector, terms: Vector) -> None:
        """Draws which stocks have just traded for the last time: bankrupt at -30 to -100 %, merged at 0 to +3 %."""
        bankruptcy = np.where(self._close < 1.0, 20.0 * _BANKRUPTCY, _BANKRUPTCY)
        for slot in np.flatnonzero(eligible & (decides < bankruptcy + _MERGER)):
            stock = self._in_slot[slot]
            assert stock is not None
            bankrupt = decides[slot] < bankruptcy[slot]
            final_return = -0.3 - 0.7 * float(terms[slot]) if bankrupt else 0.03 * float(terms[slot])
            stock.end = self._calendar.next_session(session)
            self._dividend_index[slot] = self._split_index[slot] = _NEVER
            self._leaving.append((int(slot), "bankruptcy" if bankrupt else "merger", final_return))


def _rows(days: list[_Day], source: str) -> pl.DataFrame:
    """The rows of the stocks that traded on `days`, in `PRICES_SCHEMA`."""
    if not days:
        return pl.DataFrame(schema=PRICES_SCHEMA)
    columns = {name: np.concatenate([day.columns[name] for day in days]) for name in days[0].columns}
    rows = {
        "symbol": [symbol for day in days for symbol in day.symbols],
        "date": [day.session for day in days for _ in day.symbols],
        **columns,
        "known_at": [known_at for day in days for known_at in day.known_at],
        "source": [source for day in days for _ in day.symbols],
    }
    traded = np.concatenate([day.traded for day in days])
    return pl.DataFrame(rows, schema=PRICES_SCHEMA).filter(pl.Series(traded))


def _stream(seed: int, stream: int, counter: int) -> np.random.Generator:
    """The random numbers of one session or stock: the same ones, whatever was drawn elsewhere."""
    return np.random.Generator(np.random.Philox(key=[seed, stream], counter=[0, 0, 0, counter]))


def _unit_student(rng: np.random.Generator, size: int) -> Vector:
    """(2, size) Student-t numbers of unit variance, for the overnight and the intraday part."""
    return rng.standard_t(_TAIL_FREEDOM, (2, size)) * np.sqrt((_TAIL_FREEDOM - 2.0) / _TAIL_FREEDOM)


def _next_variance(variance: Vector, surprise: Vector) -> Vector:
    """GARCH(1,1) of unit long-run variance: what the next session's is, given this one's standardised surprise."""
    news = _GARCH_NEWS * variance * surprise**2
    base = 1.0 - _GARCH_NEWS - _GARCH_PERSISTENCE
    return np.minimum(base + news + _GARCH_PERSISTENCE * variance, _GARCH_CEILING)


def _standard_score(values: Vector) -> Vector:
    """Cross-sectional standard scores clipped at 3; 0 where the value is missing or too few others are there."""
    known = np.isfinite(values)
    if known.sum() < 3 or (spread := values[known].std()) < 1e-12:
        return np.zeros(values.size)
    scores = np.clip((values - values[known].mean()) / spread, -3.0, 3.0)
    return np.where(known, scores, 0.0)


def _cents(prices: Vector) -> Vector:
    return np.maximum(np.round(prices, 2), 0.01)
