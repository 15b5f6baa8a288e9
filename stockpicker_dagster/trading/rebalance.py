"""From target weights and holdings to orders: pure arithmetic on decimals, without clock, files or broker.

The wanted shares of a name are `equity x (1 - cash buffer) x weight / price`, truncated toward zero to whole lots (or
to thousandths of a share, for longs, where the broker holds fractions). Turnover is scaled down to its cap, small
changes are left out, and the net value that truncation left over is repaired one lot at a time. What may not be opened
for its share of the daily volume is not opened on the other side either. A position never crosses zero in one order: a
change of sign is a closing order and, in a later phase, an opening one. Whether the result is allowed is asked in
`risk`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Literal

from stockpicker_dagster.errors import InvalidInput

Side = Literal["buy", "sell", "short", "cover"]
Phase = Literal["reductions", "openings"]
PHASES: tuple[Phase, Phase] = ("reductions", "openings")

ZERO = Decimal(0)
_ONE_SHARE = Decimal(1)
FRACTION = Decimal("0.001")
"""The smallest part of a share that is traded where fractions are held."""

LATER = {"later": True}
"""Marks a field that documents did not always have: it is left out of them where it says nothing new."""


class UnpricedHolding(InvalidInput):
    """Names are held that have no price, so that neither equity nor their orders can be computed."""


@dataclass(frozen=True)
class Policy:
    """How closely a book follows its targets, and how it gets there.

    `cash_buffer`: fraction of equity that targets leave aside. `no_trade_band`: changes smaller than this fraction of
    equity are not traded. `minimum_notional`: orders below this amount of currency are not placed. Full exits are
    exempt from the last two. `turnover_cap`: the most that one plan trades, as a multiple of equity; beyond it every
    change is scaled down (None: no cap). `opening_collar`: how far from its reference the limit of an opening order is.
    `slice`: about how much of equity one slice of openings trades. `lot`: shares are traded in multiples of it, and
    `lots` of those for the symbols that are there; only what closes a position is as many shares as are held.
    """

    cash_buffer: Decimal = Decimal("0.02")
    no_trade_band: Decimal = Decimal("0.0005")
    minimum_notional: Decimal = Decimal(100)
    turnover_cap: Decimal | None = field(default=None, metadata=LATER)
    opening_collar: Decimal = field(default=Decimal("0.03"), metadata=LATER)
    slice: Decimal = field(default=Decimal("0.25"), metadata=LATER)
    lot: Decimal = field(default=_ONE_SHARE, metadata=LATER)
    lots: Mapping[str, Decimal] = field(default_factory=dict, metadata=LATER)

    def __post_init__(self) -> None:
        if not ZERO <= self.cash_buffer < 1:
            raise InvalidInput(f"cash_buffer {self.cash_buffer} is not a fraction of equity; allowed: 0 up to below 1")
        for name in ("no_trade_band", "minimum_notional"):
            if getattr(self, name) < 0:
                raise InvalidInput(f"{name} {getattr(self, name)} is negative; allowed: 0 or more")
        for name in ("turnover_cap", "opening_collar", "slice"):
            figure = getattr(self, name)
            if figure is not None and figure <= 0:
                raise InvalidInput(f"{name} is {figure}; allowed: more than 0")
        if self.opening_collar >= 1:
            raise InvalidInput(f"opening_collar is {self.opening_collar}; it is a fraction below 1")
        for symbol, lot in {"every name": self.lot, **self.lots}.items():
            if not lot.is_finite() or lot < 1 or lot != lot.to_integral_value():
                raise InvalidInput(f"the lot of {symbol} is {lot} shares; allowed: whole shares, 1 or more")

    def lot_of(self, symbol: str) -> Decimal:
        """The shares of one lot of the symbol."""
        return self.lots.get(symbol, self.lot)


@dataclass(frozen=True)
class PlannedOrder:
    """One order of a plan; `quantity` is in shares, positive; `reference_price` in currency as traded."""

    symbol: str
    side: Side
    quantity: Decimal
    phase: Phase
    reference_price: Decimal

    @property
    def signed_quantity(self) -> Decimal:
        """The change of position: positive for buys and covers."""
        return self.quantity if self.side in ("buy", "cover") else -self.quantity

    @property
    def notional(self) -> Decimal:
        """The order's size in currency, at the reference price."""
        return self.quantity * self.reference_price


@dataclass(frozen=True)
class Plan:
    """The orders, reductions before openings and by symbol within; and what was left out, by name.

    `without_price`: targets that could not be sized. `too_small`: changes under the band or the minimum notional.
    `busy`: names with orders at work already, which are left alone. `turnover_scale`: by how much changes were scaled
    down for the cap, 1 where they were not. `over_volume`: the shares that openings beyond their bound would have had,
    by symbol.
    """

    orders: tuple[PlannedOrder, ...]
    without_price: tuple[str, ...]
    too_small: tuple[str, ...]
    busy: tuple[str, ...] = ()
    turnover_scale: Decimal = _ONE_SHARE
    over_volume: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True)
class Venue:
    """What can be traded.

    `fractional_longs`: longs can be opened in fractions, of names without a lot; shorts are whole lots everywhere.
    `fractional_holdings`: longs may be held in fractions that came about otherwise; what is traded of them is whole
    lots, until all of it goes.
    """

    fractional_longs: bool = False
    fractional_holdings: bool = False

    def step(self, lot: Decimal, wanted: Decimal) -> Decimal:
        """The smallest change of a position that is wanted on that side, in a name of such lots."""
        return FRACTION if self.fractional_longs and wanted > 0 and lot == _ONE_SHARE else lot


WHOLE_SHARES = Venue()


@dataclass(frozen=True)
class Bounds:
    """What repairing the net may not exceed: one position's and the book's gross weight, and one order's currency.

    `opening_shares`: the most shares of one opening, by symbol; nothing is opened in a name that is not there. None: no
    such bound.
    """

    position: Decimal
    gross: Decimal
    order_notional: Decimal
    opening_shares: Mapping[str, Decimal] | None = None

    def may_open(self, symbol: str) -> Decimal | None:
        """The most shares of one opening of the symbol; None where there is no bound."""
        return None if self.opening_shares is None else self.opening_shares.get(symbol, ZERO)


def plan_orders(
    targets: Mapping[str, Decimal],
    prices: Mapping[str, Decimal],
    holdings: Mapping[str, Decimal],
    equity: Decimal,
    policy: Policy,
    venue: Venue = WHOLE_SHARES,
    at_work: Mapping[str, Decimal] | None = None,
    bounds: Bounds | None = None,
) -> Plan:
    """The orders that bring `holdings` (signed shares) to `targets` (signed weights of equity) at `prices`.

    Names held and not targeted are closed. A target without a price is left out and reported, and so is a name of which
    orders are `at_work` (signed shares that are still to be traded by them). Repairing the net keeps within `bounds`.
    Openings keep within theirs, and what one side may not open is left out of the other's openings, in proportion, so
    that the book's net value stays as it was targeted, as far as there are openings on that side.
    Raises `UnpricedHolding` listing held names without a price, and `InvalidInput` for equity or prices that are not
    positive, or holdings that are not whole shares where only those are traded.
    """
    held = {symbol: quantity for symbol, quantity in holdings.items() if quantity}
    _check_inputs(prices, held, equity, venue)
    busy = {symbol for symbol, quantity in (at_work or {}).items() if quantity}
    changes: dict[str, _Change] = {}
    without_price: list[str] = []
    for symbol in sorted({*targets, *held} - busy):
        if symbol not in prices:
            if targets[symbol]:
                without_price.append(symbol)
            continue
        weight = targets.get(symbol, ZERO)
        exact = _exact_shares(weight, prices[symbol], equity, policy)
        now, step = held.get(symbol, ZERO), venue.step(policy.lot_of(symbol), exact)
        # Held to the lot already: another lot to and fro would only cost.
        settled = now * exact > 0 and abs(now - exact) < step
        wanted = now if settled else _truncated(exact, step)
        if now % step and now * wanted > 0:
            wanted = now + _truncated(exact - now, step)
        changes[symbol] = _Change(symbol, now, wanted, exact, prices[symbol], step)
    if venue.fractional_longs:
        _balance_with_fractions(changes, equity, bounds)
    over_volume = _limit_openings(changes, bounds)
    scale = _scale_turnover(changes, equity, policy)
    too_small = _leave_small_changes(changes, equity, policy)
    _repair_net(changes, equity, policy, bounds)
    orders = [leg for symbol in sorted(changes) for leg in changes[symbol].legs(policy)]
    orders.sort(key=lambda order: (PHASES.index(order.phase), order.symbol))
    for symbol, change in changes.items():
        traded = sum((leg.signed_quantity for leg in orders if leg.symbol == symbol), ZERO)
        if change.now + traded != change.wanted:
            too_small.add(symbol)
    return Plan(
        tuple(orders), tuple(without_price), tuple(sorted(too_small)), tuple(sorted(busy)), scale, dict(over_volume)
    )


def target_shares(weight: Decimal, price: Decimal, equity: Decimal, policy: Policy) -> Decimal:
    """The wanted position in whole shares, signed, truncated toward zero so that a weight is never exceeded."""
    return _truncated(_exact_shares(weight, price, equity, policy), _ONE_SHARE)


def _exact_shares(weight: Decimal, price: Decimal, equity: Decimal, policy: Policy) -> Decimal:
    return equity * (1 - policy.cash_buffer) * weight / price


def _truncated(shares: Decimal, step: Decimal) -> Decimal:
    return (shares / step).quantize(_ONE_SHARE, rounding=ROUND_DOWN) * step + ZERO


@dataclass
class _Change:
    """One name on its way from `now` to `wanted` shares; `exact` is what it would be without truncation."""

    symbol: str
    now: Decimal
    wanted: Decimal
    exact: Decimal
    price: Decimal
    step: Decimal

    @property
    def notional(self) -> Decimal:
        return abs(self.wanted - self.now) * self.price

    @property
    def kept(self) -> Decimal:
        """What an opening adds to: the signed shares of today on the wanted side, none where it changes its sign."""
        return self.now if self.now * self.wanted > 0 else ZERO

    @property
    def opened(self) -> Decimal:
        """How many shares are opened, positive."""
        return max(abs(self.wanted) - abs(self.kept), ZERO)

    def open_at_most(self, shares: Decimal) -> None:
        """Opens no more than so many shares, in whole lots."""
        if not self.opened:
            return
        sign = _ONE_SHARE.copy_sign(self.wanted)
        self.exact = self.kept + sign * min(max(abs(self.exact) - abs(self.kept), ZERO), shares)
        self.wanted = self.kept + sign * min(self.opened, _truncated(shares, self.step))

    @property
    def full_exit(self) -> bool:
        """Whether all that is held goes, be it for good or for the other side."""
        return bool(self.now) and self.now * self.wanted <= 0

    def legs(self, policy: Policy) -> list[PlannedOrder]:
        """The orders of this name: what reduces it, and what opens more of it, if that is worth an order."""
        if self.now == self.wanted:
            return []
        legs: list[PlannedOrder] = []
        # The part of today's position that survives: none if it is closed or changes its sign.
        kept = min(abs(self.now), abs(self.wanted)) if self.now * self.wanted > 0 else ZERO
        if abs(self.now) > kept:
            closing: Side = "sell" if self.now > 0 else "cover"
            legs.append(PlannedOrder(self.symbol, closing, abs(self.now) - kept, "reductions", self.price))
        if abs(self.wanted) > kept:
            opening: Side = "buy" if self.wanted > 0 else "short"
            legs.append(PlannedOrder(self.symbol, opening, abs(self.wanted) - kept, "openings", self.price))
        exit_leg = self.full_exit
        return [
            leg for leg in legs if leg.notional >= policy.minimum_notional or (exit_leg and leg.phase == "reductions")
        ]

    def worth_trading(self, equity: Decimal, policy: Policy) -> bool:
        """Whether it is outside the band; a full exit for good always is."""
        if not self.wanted:
            return True
        return self.notional >= policy.no_trade_band * equity and bool(self.legs(policy))


def _balance_with_fractions(changes: Mapping[str, _Change], equity: Decimal, bounds: Bounds | None) -> None:
    """Scales longs that can be held in fractions so that they take up what rounding whole shares left over."""
    fractional = [change for change in changes.values() if change.exact > 0 and change.step == FRACTION]
    value = sum((change.exact * change.price for change in fractional), ZERO)
    left = sum(
        ((change.exact - change.wanted) * change.price for change in changes.values() if change.step != FRACTION), ZERO
    )
    if value <= 0 or value + left <= 0:
        return
    for change in fractional:
        change.exact *= (value + left) / value
        if bounds is not None:
            change.exact = min(change.exact, bounds.position * equity / change.price)
        if abs(change.now - change.exact) >= change.step:
            change.wanted = _truncated(change.exact, change.step)


def _limit_openings(changes: Mapping[str, _Change], bounds: Bounds | None) -> dict[str, Decimal]:
    """Keeps every opening within its bound, and the net value where it was; returns what was wanted beyond, by name.

    What one side may not open is taken from the openings of the other side, from each in proportion to its value.
    """
    over: dict[str, Decimal] = {}
    missing = ZERO
    for change in changes.values():
        bound = None if bounds is None else bounds.may_open(change.symbol)
        if bound is None or change.opened <= bound:
            continue
        over[change.symbol], before = change.opened, change.exact
        change.open_at_most(bound)
        missing += (before - change.exact) * change.price
    other = [change for change in changes.values() if change.opened and change.wanted * missing < 0]
    value = sum((abs(change.exact - change.kept) * change.price for change in other), ZERO)
    if missing and value:
        left = max(1 - abs(missing) / value, ZERO)
        for change in other:
            change.open_at_most(abs(change.exact - change.kept) * left)
    return over


def _scale_turnover(changes: Mapping[str, _Change], equity: Decimal, policy: Policy) -> Decimal:
    """Scales every change down to the cap, so that longs and shorts shrink alike; says by how much."""
    total = sum((change.notional for change in changes.values()), ZERO)
    if policy.turnover_cap is None or total <= policy.turnover_cap * equity:
        return _ONE_SHARE
    scale = policy.turnover_cap * equity / total
    for change in changes.values():
        moved = (change.wanted - change.now) * scale
        short = change.now + moved < 0
        # On its way to a long in fractions, what is still a short is whole shares.
        change.step = step = max(change.step, _ONE_SHARE) if short else change.step
        if change.now * (change.now + moved) < 0:
            # All that is held is closed, and what is opened on the other side is whole lots.
            change.wanted = _truncated(change.now + moved, step)
        else:
            change.wanted = change.now + _truncated(moved, step)
        change.exact = change.now + (change.exact - change.now) * scale
    return scale


def _leave_small_changes(changes: Mapping[str, _Change], equity: Decimal, policy: Policy) -> set[str]:
    """Leaves names as they are whose change is not worth an order; returns those that were to change."""
    left = set()
    for change in changes.values():
        if change.now != change.wanted and not change.worth_trading(equity, policy):
            left.add(change.symbol)
            change.wanted = change.now
    return left


def _repair_net(changes: Mapping[str, _Change], equity: Decimal, policy: Policy, bounds: Bounds | None) -> None:
    """Brings the book's net value as near to its target as single lots can: truncation leaves a residual.

    Greedily takes the lot that comes nearest to closing the gap: one more of what is short of its exact target, or one
    less of what is held too much of. A name moves by one lot at most, never past its exact target by a whole lot, never
    across zero, and never into or out of an order that would not be placed.
    """
    gap = sum(((change.exact - change.wanted) * change.price for change in changes.values()), ZERO)
    spent = sum((change.notional for change in changes.values()), ZERO)
    gross = sum((abs(change.wanted) * change.price for change in changes.values()), ZERO)
    candidates = {
        symbol: change
        for symbol, change in sorted(changes.items())
        if change.now != change.wanted and change.wanted and change.wanted != change.exact
    }
    while gap and candidates:
        best: tuple[Decimal, str, Decimal, Decimal] | None = None
        for symbol, change in candidates.items():
            lot = change.step if gap > 0 else -change.step
            left = abs(gap - lot * change.price)
            if left >= abs(gap) or (best is not None and left >= best[0]):
                continue
            larger = change.price * change.step if lot * change.wanted > 0 else ZERO
            if bounds is not None and gross + larger > bounds.gross * equity:
                continue
            cost = _cost_of(change, lot, equity, policy, bounds)
            if cost is not None and (policy.turnover_cap is None or spent + cost <= policy.turnover_cap * equity):
                best = left, symbol, lot, cost
        if best is None:
            return
        _, symbol, lot, cost = best
        change = candidates.pop(symbol)
        change.wanted += lot
        gap -= lot * change.price
        gross += abs(lot) * change.price if lot * change.wanted > 0 else -abs(lot) * change.price
        spent += cost


def _cost_of(change: _Change, lot: Decimal, equity: Decimal, policy: Policy, bounds: Bounds | None) -> Decimal | None:
    """What one lot more or less adds to turnover; None where it may not be."""
    moved = change.wanted + lot
    if moved * change.wanted <= 0 or abs(moved - change.exact) >= change.step:
        return None
    if (moved - change.now) * (change.wanted - change.now) <= 0:
        return None
    if bounds is not None and abs(moved) * change.price > bounds.position * equity:
        return None
    tried = _Change(change.symbol, change.now, moved, change.exact, change.price, change.step)
    if not tried.worth_trading(equity, policy) or len(tried.legs(policy)) != len(change.legs(policy)):
        return None
    if bounds is not None and any(leg.notional > bounds.order_notional for leg in tried.legs(policy)):
        return None
    bound = None if bounds is None else bounds.may_open(change.symbol)
    if bound is not None and tried.opened > bound:
        return None
    return tried.notional - change.notional


def _check_inputs(prices: Mapping[str, Decimal], held: Mapping[str, Decimal], equity: Decimal, venue: Venue) -> None:
    if equity <= 0:
        raise InvalidInput(f"equity is {equity}, nothing can be sized on it; fund the account or close its positions")
    wrong = sorted(symbol for symbol, price in prices.items() if not price.is_finite() or price <= 0)
    if wrong:
        raise InvalidInput(f"the price of {wrong[0]} is {prices[wrong[0]]}; prices are positive numbers")
    unpriced = sorted(set(held) - set(prices))
    if unpriced:
        raise UnpricedHolding(
            f"no price for {', '.join(unpriced)}, held in the account; bring their prices or book their delisting"
        )
    broken = sorted(symbol for symbol, quantity in held.items() if quantity != quantity.to_integral_value())
    if broken and not (venue.fractional_longs or venue.fractional_holdings):
        raise InvalidInput(f"{held[broken[0]]} shares of {broken[0]} are held; only whole shares can be traded here")
