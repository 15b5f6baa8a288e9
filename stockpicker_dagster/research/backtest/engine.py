"""The back-test of one strategy: shares and cash on as-traded prices, traded in the next session, marked at each close.

Splits multiply the shares and dividends move cash, so prices are never adjusted as well (that would count both twice).
Every cost is a figure of its own. Scores come in as a panel, decision days from `research.rebalancing`; comparing the
result with luck is `random_books`, judging it `performance`. The arithmetic itself is in `kernels`.
"""

from dataclasses import dataclass
from datetime import date
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.research.backtest import kernels
from stockpicker_dagster.research.backtest.book_state import BookState
from stockpicker_dagster.research.backtest.market_data import MarketData
from stockpicker_dagster.research.backtest.trailing_risk import BETA_SESSIONS, VOLATILITY_SESSIONS, TrailingRisk
from stockpicker_dagster.research.portfolio import (
    Neutrality,
    Weighting,
    checked_scores,
    leg_rule,
    no_positions,
    no_traits,
    rank,
)
from stockpicker_dagster.research.rebalancing import RebalanceRule, rebalance_offsets

Floats = NDArray[np.float64]
Fill = Literal["open", "close", "vwap_proxy"]
_BASIS_POINT = 1e-4
_NOTHING: Floats = np.zeros((0, 0))


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
    """How a leg is shared out; see `portfolio.target_weights`. Volatility is that of `trailing_risk`."""
    rebalance: RebalanceRule = "weekly"
    rebalance_offset: int | None = None
    """Which day of the week, of the month or of the k sessions; see `research.rebalancing`."""
    hold_band: float = 1.0
    """A name stays in its leg while it ranks within this multiple of the leg's size; 1.0: no band. A band ends
    where the other leg begins."""
    sleeves: int = 1
    """Overlapping parts (Jegadeesh and Titman 1993): a decision renews the oldest 1/k of the book, and the target is
    the mean of the last k decisions. Until there are k, what is missing stays in cash."""
    gross: float | None = None
    """Long plus short target as a multiple of equity, half for each leg; None: 1.0 for each leg."""
    max_weight: float | None = None
    """The largest target of one name as a fraction of equity. What is cut off goes to the rest of its leg in
    proportion; a leg in which all are cut is smaller. None: no cap."""
    neutral: Neutrality = "dollar"
    """`dollar`: both legs alike. `beta`: legs scaled so that their trailing betas cancel, at the same gross (an unknown
    beta counts as 1; dollar-neutral where a leg's beta is not positive). `sector`: both legs alike within each sector,
    each as large as its share of the scored names; a sector with too few names for both legs is left out.
    `exposures`: weights changed as little as it takes (least squares, each in proportion to its size, none to the other
    side) for nothing to be left of the sums of weight x exposure; dollar-neutral, too. With `max_weight` the whole book
    then shrinks until its largest name fits; where no weights on these sides are neutral, there is no book."""
    exposures: tuple[str, ...] = ()
    """To what, with neutral `exposures`: `market`, the trailing beta (an unknown one counts as 1); `sector`; and the
    names of `MarketData.styles` (an unknown one counts as 0)."""
    volatility_target: float | None = None
    """The standard deviation of a year's return above which a target is scaled down, by what its weights would have
    earned on each of the last 60 sessions; `gross` is never exceeded. None, or with fewer than 30 such sessions: no
    scaling."""
    commission_bps: float = 0.0
    """Basis points of every traded notional."""
    commission_per_share: float = 0.0
    """Currency per share traded, as-traded shares."""
    spread_bps: float = 0.0
    """The full quoted spread in basis points of the price; a trade pays half of it."""
    impact_coefficient: float = 0.0
    """A trade costs its notional x coefficient x daily volatility x sqrt(notional / daily dollar volume), both trailing
    and known at the decision; with it, a name without a known volatility or dollar volume is not traded."""
    borrow_bps_per_year: float = 0.0
    """Basis points per year on the market value of shorts at the close, for each calendar day of 365."""
    hard_to_borrow_bps_per_year: float | None = None
    """The same for names whose trailing dollar volume is below `hard_to_borrow_below`, or unknown; None: one tier."""
    hard_to_borrow_below: float = 5_000_000.0
    """Currency a day. A fee listed for the name (`MarketData.borrow_rate`) goes before both tiers."""
    cash_interest_bps_per_year: float = 0.0
    """Likewise on the cash balance, received if positive, paid if negative."""
    short_interest_bps_per_year: float | None = None
    """The same on the part of the cash that secures shorts, their market value at the close; None: the rate of cash."""
    assumed_delisting_return: float = 0.0
    """Stands in where a delisting's return is unknown; show results at 0 and at -0.30 (Shumway 1997)."""
    capital: float = 1_000_000.0
    """Equity before the first session, in currency. Shares are fractional, so without impact results scale with it."""
    fill: Fill = "open"
    """At which price of the session after the decision trades are filled: its open, its close, or as `vwap_proxy` the
    mean of open, high, low and close."""

    def __post_init__(self) -> None:
        self.legs()
        _require(
            (self.neutral == "exposures") == bool(self.exposures),
            "exposures",
            self.exposures,
            f"at least one with neutral 'exposures' and none with any other; neutral is {self.neutral!r}",
        )
        allowed = rebalance_offsets(self.rebalance)
        if self.rebalance_offset is not None and self.rebalance_offset not in allowed:
            raise InvalidInput(
                f"rebalance_offset {self.rebalance_offset} is not allowed with {self.rebalance!r}; "
                f"choose {allowed[0]} to {allowed[-1]}"
            )
        for name in ("commission_bps", "spread_bps"):
            _require(0.0 <= getattr(self, name) < 10_000.0, name, getattr(self, name), "0 to below 10000 basis points")
        for name in (
            "borrow_bps_per_year",
            "hard_to_borrow_bps_per_year",
            "cash_interest_bps_per_year",
            "short_interest_bps_per_year",
        ):
            value = getattr(self, name)
            _require(value is None or 0.0 <= value < np.inf, name, value, "0 or more basis points per year")
        for name, unit in (
            ("commission_per_share", "currency per share"),
            ("impact_coefficient", "times the daily volatility"),
            ("hard_to_borrow_below", "currency a day"),
        ):
            _require(0.0 <= getattr(self, name) < np.inf, name, getattr(self, name), f"0 or more, {unit}")
        _require(
            -1.0 <= self.assumed_delisting_return < np.inf,
            "assumed_delisting_return",
            self.assumed_delisting_return,
            "a fraction of at least -1",
        )
        _require(0.0 < self.capital < np.inf, "capital", self.capital, "a positive amount of money")
        _require(self.fill in get_args(Fill), "fill", self.fill, ", ".join(map(repr, get_args(Fill))))

    def legs(self) -> kernels.Legs:
        """How the book is chosen, as the kernels read it."""
        return leg_rule(
            self.long,
            self.short,
            self.weights,
            hold_band=self.hold_band,
            sleeves=self.sleeves,
            gross=self.gross,
            max_weight=self.max_weight,
            neutral=self.neutral,
            volatility_target=self.volatility_target,
        )

    @property
    def largest_leg(self) -> float:
        """What one leg of the target can weigh at most, as a fraction of equity."""
        legs = self.legs()
        return legs.long_gross + legs.short_gross if self.neutral == "beta" else legs.long_gross

    @property
    def needs_trailing_risk(self) -> bool:
        """Whether the market has to come with `MarketData.trailing`."""
        return self.look_back > 0

    @property
    def look_back(self) -> int:
        """How many sessions before the first the rules want prices of."""
        if self.neutral == "beta" or "market" in self.exposures:
            return BETA_SESSIONS + 1
        tiers = self.hard_to_borrow_bps_per_year is not None
        recent = self.weights == "volatility" or self.impact_coefficient or tiers or self.volatility_target is not None
        # One more session than returns.
        return VOLATILITY_SESSIONS + 1 if recent else 0

    @property
    def needs_sectors(self) -> bool:
        """Whether the market has to come with `MarketData.sector`."""
        return self.neutral == "sector" or "sector" in self.exposures

    @property
    def styles(self) -> tuple[str, ...]:
        """The styles that the market has to come with, in their order."""
        return tuple(name for name in self.exposures if name not in ("market", "sector"))

    @property
    def remembers(self) -> bool:
        """Whether a decision depends on the ones before it, and not on the day's scores alone."""
        return self.hold_band > 1.0 or self.sleeves > 1


@dataclass(frozen=True)
class BookHistory:
    """What happened to a book on each session: `(T,)`, and `(T, N)` for `shares` and `weights`; no NaN anywhere.

    Row *t* uses scores up to *t - 1* and prices up to *t* and is known after the close of *t*. Returns and costs are
    fractions of the equity at the close before, so that
    `net_return = gross_return + interest - commission - spread - impact - borrow` and
    `gross_return = overnight + intraday`.
    """

    sessions: tuple[date, ...]
    symbols: tuple[str, ...]
    equity: Floats
    """Currency, at the close."""
    net_return: Floats
    gross_return: Floats
    """Of prices, dividends and delistings alone."""
    overnight: Floats
    """The part of `gross_return` from the close before to the fill (by default the open), earned by the old book."""
    intraday: Floats
    """The part from the fill to the close, earned by the new book; delistings of the day included."""
    commission: Floats
    spread: Floats
    impact: Floats
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
    cash: Floats
    """Currency, at the close: `cash` plus the market value of the positions is `equity`."""
    dividends: Floats
    """Currency, received on longs less owed on shorts."""
    delistings: Floats
    """Currency, for positions closed because their stock was delisted."""
    bought: Floats
    """Currency, bought less sold."""
    state: BookState | None
    """The book after the last session, to go on from; None if there was no session."""

    def open_to_open(self) -> Floats:
        """The gross return from the fill of *t* to the fill of *t + 1*, `(T - 1,)`, over the equity at the fill of *t*.

        Known after the fill of *t + 1*. It is what a score made after the close of *t - 1* earns.
        """
        before = self.equity[:-1] / (1.0 + self.net_return[:-1])
        at_open = before * (1.0 + self.overnight[:-1])
        return (before * self.intraday[:-1] + self.equity[:-1] * self.overnight[1:]) / at_open


def run(
    scores: Floats,
    market: MarketData,
    rules: Rules,
    decision_days: NDArray[np.bool_],
    *,
    resume_from: BookState | None = None,
) -> BookHistory:
    """Back-test one score panel.

    `scores` are `(T, N)` in the columns of `market`, NaN where a stock is no scored member; `decision_days` `(T,)` says
    which closes decide (`rebalancing.rebalance_days`). A decision after the close of *t* sets target weights of the
    equity at the open of *t + 1* (or whichever price `rules.fill` says), and trades there:

    - a name without that price, or without volume on that session, is not traded: its position stays, its target is
      dropped, the leg is not scaled up again;
    - a name without a close is marked at the last price known, carried over splits and dividends;
    - a decision day without any score sells everything;
    - a delisted name is closed after the session's marks at last price x (1 + delisting return), without costs.

    `resume_from` is the state after the session before the first of `market`, which was built with its `known` symbols;
    the results are those of one run from the start, byte for byte. Raises `InvalidInput` for shapes that do not fit,
    infinite scores, a state of another market, or data that the rules need and the market lacks; and `BookRuined`,
    naming the session, when the equity is gone.
    """
    inputs = make_inputs(scores, market, rules, decision_days, resume_from)
    sessions, names = scores.shape
    books = make_books(rules, names, 1, resume_from)
    records, ledger = make_records(sessions, 1), make_ledger(sessions, names)
    kernels.simulate(kernels.OWN, 0, 0, 0, inputs.decisions, *inputs.for_kernels, books, records, ledger)
    if records.ruined[0] >= 0:
        raise BookRuined(
            f"the book's equity is gone on {market.sessions[records.ruined[0]]}; "
            "hold more names, or look for a bad price on that day"
        )
    return _history(market, inputs, books, records, ledger)


def targets(
    scores: Floats,
    market: MarketData,
    rules: Rules,
    decision_days: NDArray[np.bool_],
) -> Floats:
    """The target weights that `run` would trade to after each decision, `(T, N)`; rows of other days are zero.

    Row *t* is known after the close of *t*. Raises as `run` does.
    """
    inputs = make_inputs(scores, market, rules, decision_days, None)
    weights = np.zeros(scores.shape)
    books = no_positions(1, scores.shape[1], rules.sleeves, 0.0)
    kernels.plan(inputs.ranking, inputs.traits, rules.legs(), 0, books, weights)
    return weights


@dataclass(frozen=True, eq=False)
class Inputs:
    """A market, a score panel and rules as the kernels read them, for one book or many."""

    tape: kernels.Tape
    ranking: kernels.Ranking
    traits: kernels.Traits
    legs: kernels.Legs
    terms: kernels.Terms
    decisions: int
    """How many decisions there were before the first session."""
    last_price: Floats
    """(N,) after the last session."""
    peers: NDArray[np.str_]
    """(N,) the sector of each stock on the day of its first score, '' where unknown or of no concern."""

    @property
    def for_kernels(self) -> tuple[kernels.Tape, kernels.Ranking, kernels.Traits, kernels.Legs, kernels.Terms]:
        """In the order of the kernel's arguments."""
        return self.tape, self.ranking, self.traits, self.legs, self.terms


def make_inputs(
    scores: Floats,
    market: MarketData,
    rules: Rules,
    decision_days: NDArray[np.bool_],
    resume_from: BookState | None,
) -> Inputs:
    """Everything that all books of a back-test share; raises as `run` does."""
    shape = (len(market.sessions), len(market.symbols))
    if scores.shape != shape or decision_days.shape != shape[:1]:
        raise InvalidInput(
            f"scores of shape {scores.shape} with {decision_days.shape} decision days do not fit a market of "
            f"{shape[0]} sessions and {shape[1]} symbols; build them with MarketData.panel and rebalance_days"
        )
    _check_state(market, resume_from)
    panel = np.ascontiguousarray(checked_scores(scores), dtype=np.float64)
    trailing = _trailing(market, rules)
    tape, last_price = _tape(market, rules, trailing, resume_from)
    peers = _peers(panel, market, rules, resume_from)
    traits = _traits(market, rules, trailing)
    ranking = rank(
        panel,
        market.by_name,
        decision_days,
        day_number=market.day_number,
        appeared=None if resume_from is None else resume_from.appeared,
        peer_group=np.unique(peers, return_inverse=True)[1].astype(np.int64),
    )
    return Inputs(
        tape,
        ranking,
        traits,
        rules.legs(),
        _terms(rules),
        0 if resume_from is None else resume_from.decisions,
        last_price,
        peers,
    )


def _check_state(market: MarketData, state: BookState | None) -> None:
    if state is None:
        return
    known = market.symbols[: len(state.symbols)]
    if list(known) != state.symbols.tolist() or not market.sessions or market.sessions[0] <= state.session:
        raise InvalidInput(
            f"the state of {state.session} with {len(state.symbols)} symbols is not followed by this market of "
            f"{len(market.sessions)} sessions and {len(market.symbols)} symbols; build it from the sessions after that "
            "day, with the state's symbols as `known`"
        )


def _trailing(market: MarketData, rules: Rules) -> TrailingRisk | None:
    if rules.needs_trailing_risk and market.trailing is None:
        raise InvalidInput(
            f"weights {rules.weights!r}, neutral {rules.neutral!r}, impact, borrow tiers and volatility_target may "
            "need trailing risk, and the market has none; build it with market_data(..., trailing=True) and the "
            "look-back of the rules"
        )
    return market.trailing


def _tape(
    market: MarketData, rules: Rules, trailing: TrailingRisk | None, state: BookState | None
) -> tuple[kernels.Tape, Floats]:
    """What the market did, and the last price of each name after the last session."""
    last_price = np.full(len(market.symbols), np.nan)
    if state is not None:
        last_price[: len(state.last_price)] = state.last_price
    fill = _fill_prices(market, rules)
    fill_mark, close_mark, last_price = kernels.marks(market.open, market.close, fill, market.adjustment, last_price)
    tradable = ~np.isnan(fill)
    if market.volume is not None:
        tradable &= market.volume != 0.0
    impact = _NOTHING
    if rules.impact_coefficient and trailing is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            impact = rules.impact_coefficient * trailing.volatility[:-1] / np.sqrt(trailing.dollar_volume[:-1])
        tradable &= np.isfinite(impact)
    actions = (market.dividend != 0.0) | (market.split_ratio != 1.0)
    before = market.day_number[:1] if state is None else np.array([np.datetime64(state.session, "D").astype(np.int64)])
    tape = kernels.Tape(
        fill_mark=fill_mark,
        close_mark=close_mark,
        trade_price=np.where(tradable, fill_mark, np.nan),
        dividend=market.dividend,
        split_ratio=market.split_ratio,
        action_day=np.any(actions, axis=1),
        delisted=market.delisted,
        delisting_return=np.where(
            np.isnan(market.delisting_return), rules.assumed_delisting_return, market.delisting_return
        ),
        delisting_day=np.asarray(market.delisted.any(axis=1)),
        calendar_days=np.diff(market.day_number, prepend=before).astype(np.float64),
        impact=impact,
        borrow_rate=_borrow_rates(market, rules, trailing),
        traded_before=state is not None and state.decided,
    )
    return tape, last_price


def _fill_prices(market: MarketData, rules: Rules) -> Floats:
    """NaN where a name cannot be traded on that session."""
    if rules.fill == "open":
        return market.open
    if rules.fill == "close":
        return market.close
    if market.high is None or market.low is None:
        raise InvalidInput("fill 'vwap_proxy' needs high and low prices, and the market has none; fill at the open")
    return (market.open + market.high + market.low + market.close) / 4.0


def _borrow_rates(market: MarketData, rules: Rules, trailing: TrailingRisk | None) -> Floats:
    """The fee of each name from each close on, per year; empty where all names cost the same."""
    tier = rules.hard_to_borrow_bps_per_year
    if tier is None and market.borrow_rate is None:
        return _NOTHING
    rates = np.full(market.open.shape, rules.borrow_bps_per_year * _BASIS_POINT)
    if tier is not None and trailing is not None:
        liquid = trailing.dollar_volume[1:] >= rules.hard_to_borrow_below
        rates[~liquid] = tier * _BASIS_POINT
    if market.borrow_rate is not None:
        listed = ~np.isnan(market.borrow_rate)
        rates[listed] = market.borrow_rate[listed]
    return rates


def _traits(market: MarketData, rules: Rules, trailing: TrailingRisk | None) -> kernels.Traits:
    traits = no_traits()._replace(sessions=len(market.sessions), exposures=_exposures(market, rules, trailing))
    if rules.weights == "volatility" and trailing is not None:
        traits = traits._replace(volatility=trailing.volatility[1:])
    if rules.neutral == "beta" and trailing is not None:
        traits = traits._replace(beta=trailing.beta[1:])
    if rules.volatility_target is not None and trailing is not None:
        traits = traits._replace(returns=np.nan_to_num(trailing.of_symbols, nan=0.0))
    if rules.needs_sectors:
        names, codes = np.unique(_sectors(market), return_inverse=True)
        traits = traits._replace(sector=codes.reshape(market.open.shape).astype(np.int64), sectors=len(names))
    return traits


def _exposures(market: MarketData, rules: Rules, trailing: TrailingRisk | None) -> Floats:
    """Market and styles, `(T, N, K)`."""
    panels = []
    if "market" in rules.exposures and trailing is not None:
        panels.append(np.nan_to_num(trailing.beta[1:], nan=1.0))
    for name in rules.styles:
        if market.styles is None or name not in market.styles:
            raise InvalidInput(
                f"exposures name {name!r}, and the market has no such style; known: market, sector"
                f"{''.join(f', {known}' for known in market.styles or ())}"
            )
        panels.append(np.nan_to_num(market.styles[name], nan=0.0))
    return np.ascontiguousarray(np.stack(panels, axis=2)) if panels else np.zeros((*market.open.shape, 0))


def _sectors(market: MarketData) -> NDArray[np.str_]:
    if market.sector is None:
        raise InvalidInput("a book neutral to sectors needs the sector of every stock, and the market has none")
    return market.sector


def _peers(panel: Floats, market: MarketData, rules: Rules, state: BookState | None) -> NDArray[np.str_]:
    """The sector of each stock on the day of its first score; only a sector-neutral book asks for it."""
    if rules.neutral != "sector":
        return np.full(len(market.symbols), "", dtype="<U1")
    sectors = _sectors(market)
    first = (~np.isnan(panel)).argmax(axis=0)
    peers = sectors[first, np.arange(len(market.symbols))].astype(object)
    if state is not None:
        peers[state.appeared] = state.appeared_sector
    return peers.astype(np.str_)


def _terms(rules: Rules) -> kernels.Terms:
    """The costs as fractions."""
    short_interest = rules.short_interest_bps_per_year
    return kernels.Terms(
        capital=float(rules.capital),
        commission=rules.commission_bps * _BASIS_POINT,
        commission_per_share=float(rules.commission_per_share),
        half_spread=rules.spread_bps * _BASIS_POINT / 2.0,
        borrow=rules.borrow_bps_per_year * _BASIS_POINT,
        cash_interest=rules.cash_interest_bps_per_year * _BASIS_POINT,
        short_interest=(rules.cash_interest_bps_per_year if short_interest is None else short_interest) * _BASIS_POINT,
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
    days = [np.zeros(sessions) for _ in kernels.Ledger._fields[:-1]]
    return kernels.Ledger._make([*days, np.zeros((sessions, names))])


def make_books(rules: Rules, names: int, books: int, state: BookState | None) -> kernels.Books:
    """The books before the first session: cash alone, or as `state` left them."""
    made = no_positions(books, names, rules.sleeves, float(rules.capital))
    if state is None:
        return made
    if state.targets.shape != made.targets.shape:
        raise InvalidInput(
            f"the state of {state.session} is of {state.targets.shape[0]} books with {state.targets.shape[1]} sleeves, "
            f"not of {books} with {rules.sleeves}; run the back-test from its first session"
        )
    for name in ("cash", "equity", "short_value", "borrow_fee", "gone", "held", "targets"):
        getattr(made, name)[...] = getattr(state, name)
    held = np.arange(names) < state.held[:, None]
    made.held_columns[held] = state.held_columns
    made.shares[np.nonzero(held)[0], state.held_columns] = state.held_shares
    listed = np.arange(names) < state.targets[:, :, None]
    made.target_columns[listed] = state.target_columns
    made.target_weights[listed] = state.target_weights
    return made


def state_after(market: MarketData, inputs: Inputs, books: kernels.Books) -> BookState | None:
    """What the next session needs of these books; None for a market without any session."""
    if not market.sessions:
        return None
    names = books.shares.shape[1]
    held = np.arange(names) < books.held[:, None]
    listed = np.arange(names) < books.targets[:, :, None]
    held_columns = books.held_columns[held].astype(np.int64)
    appeared = inputs.ranking.column_of[: inputs.ranking.appeared[-1]]
    return BookState(
        session=market.sessions[-1],
        decided=bool(inputs.ranking.decision[-1]),
        decisions=inputs.decisions + int(inputs.ranking.decision.sum()),
        symbols=np.array(market.symbols, dtype=np.str_),
        last_price=inputs.last_price,
        appeared=appeared.copy(),
        appeared_sector=inputs.peers[appeared],
        cash=books.cash.copy(),
        equity=books.equity.copy(),
        short_value=books.short_value.copy(),
        borrow_fee=books.borrow_fee.copy(),
        gone=books.gone.copy(),
        held=books.held.copy(),
        held_columns=held_columns,
        held_shares=books.shares[np.nonzero(held)[0], held_columns],
        targets=books.targets.copy(),
        target_columns=books.target_columns[listed].astype(np.int64),
        target_weights=books.target_weights[listed],
    )


def _history(
    market: MarketData, inputs: Inputs, books: kernels.Books, records: kernels.Records, ledger: kernels.Ledger
) -> BookHistory:
    gross_return = records.gross_return[:, 0].copy()
    # Before its first price a name has no mark, and nobody holds it.
    weights = np.where(ledger.shares == 0.0, 0.0, ledger.shares * inputs.tape.close_mark / ledger.equity[:, None])
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
        impact=ledger.impact,
        borrow=ledger.borrow,
        interest=ledger.interest,
        turnover=records.turnover[:, 0].copy(),
        gross_exposure=_row_sums(long_value - short_value),
        net_exposure=_row_sums(long_value + short_value),
        longs=(ledger.shares > 0.0).sum(axis=1),
        shorts=(ledger.shares < 0.0).sum(axis=1),
        shares=ledger.shares,
        weights=weights,
        cash=ledger.cash,
        dividends=ledger.dividends,
        delistings=ledger.delistings,
        bought=ledger.bought,
        state=state_after(market, inputs, books),
    )


def _row_sums(values: Floats) -> Floats:
    """Sums over each row from left to right: a later column of zeros changes no bit (NumPy's pairwise sum may)."""
    return np.cumsum(values, axis=1)[:, -1] if values.shape[1] else np.zeros(len(values))


def _require(fine: bool, name: str, value: object, allowed: str) -> None:
    if not fine:
        raise InvalidInput(f"{name} is {value!r}; allowed is {allowed}")
