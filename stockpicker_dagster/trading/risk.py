"""The limits that a basket of orders must keep, each small and named; pure, without clock, files or broker.

They are checked when a rebalance is planned and again just before it is submitted, on fresh positions and prices, in
the spirit of the pre-trade controls of SEC rule 15c3-5. What to do about a breach is decided by the caller.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Literal

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.rebalance import LATER, Phase, PlannedOrder

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
    shorts. `volume_share`: shares of one opening, as a fraction of the name's mean daily volume, which has to
    be known. `daily_loss`: what the account may lose from the start of a session before nothing more is opened in it.
    `orders_per_minute`: orders sent within any minute. `restricted`: names in which nothing may be opened.
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
    volume_share: Decimal = field(default=Decimal("0.1"), metadata=LATER)
    daily_loss: Decimal = field(default=Decimal("0.1"), metadata=LATER)
    orders_per_minute: Decimal = field(default=Decimal(6_000), metadata=LATER)

    def __post_init__(self) -> None:
        for name in LIMIT_NAMES:
            figure = getattr(self, name)
            if not isinstance(figure, Decimal) or not figure.is_finite() or figure < 0:
                raise InvalidInput(f"the limit `{name}` is {figure}; allowed: a number of 0 or more")


LIMIT_NAMES = tuple(each.name for each in fields(Limits) if each.name != "restricted")
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
class Market:
    """What is known of the market beside prices; what is not known is not checked.

    `volumes`: mean daily volume in shares by symbol; nothing may be opened in a name that is missing there (None: no
    volume of any name is known, and none is checked). `borrow`: whether shares can be borrowed by symbol, `easy`,
    `hard`, `none` or `unknown`. `start_equity`: what the account was worth when the session's trading began, in
    currency. `buying_power`: what the broker says may still be opened, in currency.
    """

    volumes: Mapping[str, Decimal] | None = None
    borrow: Mapping[str, str] = field(default_factory=dict)
    start_equity: Decimal | None = None
    buying_power: Decimal | None = None


NOTHING_KNOWN = Market()


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
    market: Market = NOTHING_KNOWN,
) -> list[Breach]:
    """Every limit that `orders` would break on an account in `state`, at `prices` (currency, for all names concerned).

    Gross, net, position and buying power are breached only by a basket that makes them worse: a book beyond its limits
    may always be reduced. Volume, borrow and the daily loss are about openings alone. `price_age_days` is counted from
    the reference prices' session to the one traded in.
    """
    equity = state.equity(prices)
    if equity <= 0:
        return [Breach("equity", "", "", f"equity is {equity:.2f}; nothing may be traded on it but by a flattening")]
    return [
        *_order_breaches(orders, limits, prices),
        *_opening_breaches(orders, limits, equity, market),
        *_basket_breaches(orders, limits, prices, equity, price_age_days),
        *_book_breaches(orders, limits, state, prices, equity),
        *_broker_breaches(orders, prices, market),
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


def _opening_breaches(
    orders: Sequence[PlannedOrder], limits: Limits, equity: Decimal, market: Market
) -> Iterator[Breach]:
    """What keeps single openings from being sent; whatever reduces a position passes."""
    loss = ZERO if not market.start_equity else 1 - equity / market.start_equity
    for order in orders:
        if order.phase != "openings":
            continue
        symbol = order.symbol
        if symbol in limits.restricted:
            yield Breach("restricted", symbol, "openings", f"{symbol}: nothing may be opened in it, it is restricted")
        if market.volumes is not None:
            yield from _volume_breaches(order, limits, market.volumes.get(symbol))
        borrow = market.borrow.get(symbol, "unknown")
        if order.side == "short" and borrow in ("none", "hard"):
            message = f"{symbol}: its shares are {borrow} to borrow, and only what is easy to borrow is sold short"
            yield Breach("borrow", symbol, "openings", message)
        if loss > limits.daily_loss:
            yield _breach("daily_loss", "loss since the session began", loss, limits.daily_loss, symbol, "openings")


def opening_shares(limits: Limits, volumes: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """The most shares that one opening may have, by symbol, for mean daily `volumes` in shares."""
    return {symbol: limits.volume_share * volume for symbol, volume in volumes.items()}


def _volume_breaches(order: PlannedOrder, limits: Limits, volume: Decimal | None) -> Iterator[Breach]:
    symbol, limit = order.symbol, limits.volume_share
    if volume is None:
        message = f"{symbol}: its daily volume is not known, and the limit `volume_share` of {limit} asks for it"
        yield Breach("volume_share", symbol, "openings", message)
    elif order.quantity > limit * volume:
        share = order.quantity / volume if volume else Decimal("Infinity")
        what = f"share of the mean daily volume of {volume:.0f} shares"
        yield _breach("volume_share", what, share, limit, symbol, "openings")


def check_burst(sent_within_a_minute: int, limits: Limits) -> Breach | None:
    """Whether one more order would be one too many within a minute: what runs wild sends many."""
    count = Decimal(sent_within_a_minute + 1)
    if count <= limits.orders_per_minute:
        return None
    return _breach("orders_per_minute", "orders within a minute", count, limits.orders_per_minute)


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


def _broker_breaches(orders: Sequence[PlannedOrder], prices: Mapping[str, Decimal], market: Market) -> Iterator[Breach]:
    """Whether the broker itself would let all of it be opened."""
    if market.buying_power is None:
        return
    needed = sum(
        (
            order.quantity * prices[order.symbol] * (_SHORT_RESERVE if order.side == "short" else 1)
            for order in orders
            if order.phase == "openings"
        ),
        ZERO,
    )
    if needed > market.buying_power:
        yield _breach("buying_power", "buying power that the openings need", needed, market.buying_power)


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
