"""The limits that a basket of orders must keep, each small and named; pure, without clock, files or broker.

They are checked when a rebalance is planned and again just before it is submitted, on fresh positions and prices, in
the spirit of the pre-trade controls of SEC rule 15c3-5. What to do about a breach is decided by the caller.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Literal

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.rebalance import Phase, PlannedOrder

ZERO = Decimal(0)
_SHORT_RESERVE = Decimal("1.03")
"""Brokers reserve 3 % more than its price for a new short."""


class LooserThanAccount(InvalidInput):
    """A strategy asks for a limit that its account does not grant."""


@dataclass(frozen=True)
class Limits:
    """The most that an account allows; multiples and fractions are of equity, at the prices of the check.

    `order_notional`: currency in one order. `position`: absolute value of one name. `gross`: sum of absolute values.
    `net`: absolute value of longs less shorts. `turnover`: value traded by one proposal. `orders`: orders in one
    proposal. `price_age_days`: calendar days from the session of the reference prices to the session traded in.
    `collar`: largest move of a price away from its reference. `buying_power`: gross value with a reserve of 3 % on new
    shorts. `restricted`: names in which nothing may be opened.
    """

    order_notional: Decimal = Decimal(250_000)
    position: Decimal = Decimal("0.25")
    gross: Decimal = Decimal("2.2")
    net: Decimal = Decimal("0.2")
    turnover: Decimal = Decimal("4.5")
    orders: Decimal = Decimal(2_000)
    price_age_days: Decimal = Decimal(7)
    collar: Decimal = Decimal("0.2")
    buying_power: Decimal = Decimal(4)
    restricted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in LIMIT_NAMES:
            figure = getattr(self, name)
            if not isinstance(figure, Decimal) or not figure.is_finite() or figure < 0:
                raise InvalidInput(f"the limit `{name}` is {figure}; allowed: a number of 0 or more")


LIMIT_NAMES = tuple(field.name for field in fields(Limits) if field.name != "restricted")
"""The limits that are one figure, in the order in which breaches are reported."""


@dataclass(frozen=True)
class AccountState:
    """What an account holds when a check is made: cash in currency, signed shares by symbol."""

    cash: Decimal
    holdings: Mapping[str, Decimal]

    def equity(self, prices: Mapping[str, Decimal]) -> Decimal:
        """Cash plus the value of every position, in currency."""
        unpriced = sorted(symbol for symbol, held in self.holdings.items() if held and symbol not in prices)
        if unpriced:
            raise InvalidInput(f"no price for {', '.join(unpriced)}, held in the account; equity cannot be computed")
        return self.cash + sum((held * prices[symbol] for symbol, held in self.holdings.items()), ZERO)


@dataclass(frozen=True)
class Breach:
    """One limit that would be broken; `subject` and `phase` name the order concerned, empty where it is the basket."""

    limit: str
    subject: str
    phase: Phase | Literal[""]
    message: str


def tightened(account: Limits, wanted: Mapping[str, object]) -> Limits:
    """The account's limits with those that a strategy sets for itself (None: not set); restricted names add up.

    Raises `InvalidInput` for a limit that does not exist or is no number, `LooserThanAccount` where the strategy's
    figure exceeds the account's.
    """
    figures: dict[str, Decimal] = {}
    restricted = set(account.restricted)
    for name, value in wanted.items():
        if value is None:
            continue
        if name == "restricted" and isinstance(value, list | tuple | set | frozenset):
            restricted |= {str(symbol) for symbol in value}
        elif name in LIMIT_NAMES and isinstance(value, int | float | Decimal | str):
            figures[name] = _figure(name, value)
        else:
            raise InvalidInput(
                f"{name}: {value!r} is no limit; allowed: a number for {', '.join(LIMIT_NAMES)}; a list for restricted"
            )
    for name, figure in figures.items():
        if figure > getattr(account, name):
            raise LooserThanAccount(
                f"the strategy's limit {name}: {figure} is looser than the account's {getattr(account, name)}; "
                "a strategy may only tighten its account"
            )
    return replace(account, restricted=tuple(sorted(restricted)), **figures)


def strictest(first: Limits, second: Limits) -> Limits:
    """Limits that keep both: an account may have been tightened since a proposal was made under its old ones."""
    figures = {name: min(getattr(first, name), getattr(second, name)) for name in LIMIT_NAMES}
    return Limits(restricted=tuple(sorted({*first.restricted, *second.restricted})), **figures)


def check(
    orders: Sequence[PlannedOrder],
    limits: Limits,
    state: AccountState,
    prices: Mapping[str, Decimal],
    price_age_days: int,
) -> list[Breach]:
    """Every limit that `orders` would break on an account in `state`, at `prices` (currency, for all names concerned).

    Gross, net, position and buying power are breached only by a basket that makes them worse: a book beyond its limits
    may always be reduced. `price_age_days` is counted from the reference prices' session to the one traded in.
    """
    equity = state.equity(prices)
    if equity <= 0:
        return [Breach("equity", "", "", f"equity is {equity:.2f}; nothing may be traded on it but by a flattening")]
    return [
        *_order_breaches(orders, limits, prices),
        *_basket_breaches(orders, limits, prices, equity, price_age_days),
        *_book_breaches(orders, limits, state, prices, equity),
    ]


def _order_breaches(orders: Sequence[PlannedOrder], limits: Limits, prices: Mapping[str, Decimal]) -> Iterator[Breach]:
    for order in orders:
        notional = order.quantity * prices[order.symbol]
        if notional > limits.order_notional:
            yield _breach(
                "order_notional", "order notional", notional, limits.order_notional, order.symbol, order.phase
            )
        move = abs(prices[order.symbol] / order.reference_price - 1)
        if move > limits.collar:
            what = "move of the price from its reference"
            yield _breach("collar", what, move, limits.collar, order.symbol, order.phase)
        if order.phase == "openings" and order.symbol in limits.restricted:
            message = f"{order.symbol}: nothing may be opened in it, it is restricted"
            yield Breach("restricted", order.symbol, order.phase, message)


def _basket_breaches(
    orders: Sequence[PlannedOrder],
    limits: Limits,
    prices: Mapping[str, Decimal],
    equity: Decimal,
    price_age_days: int,
) -> Iterator[Breach]:
    turnover = sum((order.quantity * prices[order.symbol] for order in orders), ZERO) / equity
    if turnover > limits.turnover:
        yield _breach("turnover", "turnover in multiples of equity", turnover, limits.turnover)
    if len(orders) > limits.orders:
        yield _breach("orders", "number of orders", Decimal(len(orders)), limits.orders)
    if price_age_days > limits.price_age_days:
        age = Decimal(price_age_days)
        yield _breach("price_age_days", "age of the reference prices in days", age, limits.price_age_days)


def _book_breaches(
    orders: Sequence[PlannedOrder],
    limits: Limits,
    state: AccountState,
    prices: Mapping[str, Decimal],
    equity: Decimal,
) -> Iterator[Breach]:
    before = {symbol: held * prices[symbol] / equity for symbol, held in state.holdings.items()}
    after = dict(before)
    for order in orders:
        change = order.signed_quantity * prices[order.symbol] / equity
        after[order.symbol] = after.get(order.symbol, ZERO) + change
    for symbol in sorted(after):
        weight = abs(after[symbol])
        if weight > limits.position and weight > abs(before.get(symbol, ZERO)):
            yield _breach("position", "weight of the position", weight, limits.position, symbol, "openings")
    gross_before, gross = _gross(before), _gross(after)
    if gross > limits.gross and gross > gross_before:
        yield _breach("gross", "gross exposure", gross, limits.gross)
    net_before, net = (abs(sum(book.values(), ZERO)) for book in (before, after))
    if net > limits.net and net > net_before:
        yield _breach("net", "net exposure", net, limits.net)
    shorts = sum((order.quantity * prices[order.symbol] for order in orders if order.side == "short"), ZERO)
    used = gross + shorts * (_SHORT_RESERVE - 1) / equity
    if used > limits.buying_power and used > gross_before:
        yield _breach("buying_power", "buying power used", used, limits.buying_power)


def _gross(weights: Mapping[str, Decimal]) -> Decimal:
    return sum((abs(weight) for weight in weights.values()), ZERO)


def _breach(
    limit: str, what: str, figure: Decimal, allowed: Decimal, subject: str = "", phase: Phase | Literal[""] = ""
) -> Breach:
    prefix = f"{subject}: " if subject else ""
    return Breach(
        limit, subject, phase, f"{prefix}{what} would be {figure:.4f}, above the limit `{limit}` of {allowed}"
    )


def _figure(name: str, value: float | Decimal | str) -> Decimal:
    try:
        figure = Decimal(str(value))
    except ArithmeticError:
        figure = Decimal("NaN")
    if not figure.is_finite():
        raise InvalidInput(f"the limit `{name}` is {value!r}; allowed: a number of 0 or more")
    return figure
