"""From target weights and holdings to orders: pure arithmetic on decimals, without clock, files or broker.

The wanted shares of a name are `equity x (1 - cash buffer) x weight / price`, truncated toward zero to whole shares. A
position never crosses zero in one order: a change of sign is a closing order and, in a later phase, an opening one.
Whether the result is allowed is asked in `risk`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import Literal

from stockpicker_dagster.errors import InvalidInput

Side = Literal["buy", "sell", "short", "cover"]
Phase = Literal["reductions", "openings"]
PHASES: tuple[Phase, Phase] = ("reductions", "openings")

ZERO = Decimal(0)
_ONE_SHARE = Decimal(1)


class UnpricedHolding(InvalidInput):
    """Names are held that have no price, so that neither equity nor their orders can be computed."""


@dataclass(frozen=True)
class Policy:
    """How closely a book follows its targets.

    `cash_buffer`: fraction of equity that targets leave aside. `no_trade_band`: changes smaller than this fraction of
    equity are not traded. `minimum_notional`: orders below this amount of currency are not placed. Full exits are
    exempt from the last two.
    """

    cash_buffer: Decimal = Decimal("0.02")
    no_trade_band: Decimal = Decimal("0.0005")
    minimum_notional: Decimal = Decimal(100)

    def __post_init__(self) -> None:
        if not ZERO <= self.cash_buffer < 1:
            raise InvalidInput(f"cash_buffer {self.cash_buffer} is not a fraction of equity; allowed: 0 up to below 1")
        for name in ("no_trade_band", "minimum_notional"):
            if getattr(self, name) < 0:
                raise InvalidInput(f"{name} {getattr(self, name)} is negative; allowed: 0 or more")


@dataclass(frozen=True)
class PlannedOrder:
    """One order of a plan; `quantity` is in whole shares, positive; `reference_price` in currency as traded."""

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
    """

    orders: tuple[PlannedOrder, ...]
    without_price: tuple[str, ...]
    too_small: tuple[str, ...]


def plan_orders(
    targets: Mapping[str, Decimal],
    prices: Mapping[str, Decimal],
    holdings: Mapping[str, Decimal],
    equity: Decimal,
    policy: Policy,
) -> Plan:
    """The orders that bring `holdings` (signed shares) to `targets` (signed weights of equity) at `prices`.

    Names held and not targeted are closed. A target without a price is left out and reported.
    Raises `UnpricedHolding` listing held names without a price, and `InvalidInput` for equity or prices that are not
    positive, or holdings that are not whole shares.
    """
    held = {symbol: quantity for symbol, quantity in holdings.items() if quantity}
    _check_inputs(prices, held, equity)
    orders: list[PlannedOrder] = []
    without_price: list[str] = []
    too_small: list[str] = []
    for symbol in sorted({*targets, *held}):
        if symbol not in prices:
            if targets[symbol]:
                without_price.append(symbol)
            continue
        now, price = held.get(symbol, ZERO), prices[symbol]
        wanted = target_shares(targets.get(symbol, ZERO), price, equity, policy)
        legs = _worth_trading(_legs(symbol, now, wanted, price), now, wanted, equity, policy)
        orders += legs
        if now != wanted and sum((leg.signed_quantity for leg in legs), ZERO) != wanted - now:
            too_small.append(symbol)
    orders.sort(key=lambda order: (PHASES.index(order.phase), order.symbol))
    return Plan(tuple(orders), tuple(without_price), tuple(too_small))


def target_shares(weight: Decimal, price: Decimal, equity: Decimal, policy: Policy) -> Decimal:
    """The wanted position in whole shares, signed, truncated toward zero so that a weight is never exceeded."""
    wanted = equity * (1 - policy.cash_buffer) * weight / price
    return wanted.quantize(_ONE_SHARE, rounding=ROUND_DOWN) + ZERO


def _check_inputs(prices: Mapping[str, Decimal], held: Mapping[str, Decimal], equity: Decimal) -> None:
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
    if broken:
        raise InvalidInput(f"{held[broken[0]]} shares of {broken[0]} are held; only whole shares can be traded here")


def _legs(symbol: str, now: Decimal, wanted: Decimal, price: Decimal) -> list[PlannedOrder]:
    if now == wanted:
        return []
    legs: list[PlannedOrder] = []
    # The part of today's position that survives: none if it is closed or changes its sign.
    kept = min(abs(now), abs(wanted)) if now * wanted > 0 else ZERO
    if abs(now) > kept:
        closing: Side = "sell" if now > 0 else "cover"
        legs.append(PlannedOrder(symbol, closing, abs(now) - kept, "reductions", price))
    if abs(wanted) > kept:
        opening: Side = "buy" if wanted > 0 else "short"
        legs.append(PlannedOrder(symbol, opening, abs(wanted) - kept, "openings", price))
    return legs


def _worth_trading(
    legs: list[PlannedOrder], now: Decimal, wanted: Decimal, equity: Decimal, policy: Policy
) -> list[PlannedOrder]:
    if not wanted:
        return legs
    if sum((leg.notional for leg in legs), ZERO) < policy.no_trade_band * equity:
        return []
    full_exit = now * wanted < 0
    return [leg for leg in legs if leg.notional >= policy.minimum_notional or (full_exit and leg.phase == "reductions")]
