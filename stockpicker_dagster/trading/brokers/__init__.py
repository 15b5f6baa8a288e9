"""The protocol of a broker: what execution asks of any of them, and what each answers.

An adapter translates; it never decides, never sends an order twice by itself, and never reads "no answer" as "no
order". What a venue can do is in `capabilities`; each adapter is a file or folder beside this one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, Protocol, runtime_checkable

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.trading.brokers.capabilities import Capabilities
from stockpicker_dagster.trading.ledger import Fill
from stockpicker_dagster.trading.rebalance import Phase, Side

__all__ = [
    "TERMINAL",
    "Absent",
    "AccountStatus",
    "AuctionBroker",
    "Borrow",
    "Broker",
    "BrokerOrder",
    "BrokerUnavailable",
    "Capabilities",
    "Clock",
    "Fill",
    "LastWord",
    "Lookup",
    "Movement",
    "OrderRequest",
    "OrderStatus",
    "Quote",
    "Rejected",
    "Submission",
    "Unknown",
    "last_refusal",
    "not_sent",
    "order_under_id",
    "refusal_of",
]

OrderStatus = Literal["working", "filled", "cancelled", "expired", "rejected"]
"""A partly filled order is `working`. A status that an adapter has never heard of is `working` too: it may be live."""

TERMINAL: frozenset[OrderStatus] = frozenset({"filled", "cancelled", "expired", "rejected"})

Borrow = Literal["easy", "hard", "none", "unknown"]
"""Whether shares can be borrowed to sell short: readily, at a price or by arrangement, not at all, or not known."""


LastWord = Callable[[], str | None]
"""Asked right before something leaves for the broker: why it must not, or None. It may raise, which stops it."""


class BrokerUnavailable(StockPickerError):
    """The broker did not answer a question, or answered what cannot be read. Nothing was sent by asking."""


@dataclass(frozen=True)
class OrderRequest:
    """One order to be sent; `quantity` in shares, positive; collar in currency (None: no bound).

    `limit_price`, in currency, goes with order type `limit` and with no other. From `not_after` on (None: no bound) it
    is not sent any more, however long the adapter had to wait. `sent_before` is False only where this intent certainly
    was never handed to a broker before: then an order that is not sent is `Rejected`, and else it stays `Unknown`,
    because an earlier request may have arrived. `last_word` is asked before the order leaves, as late as the adapter
    can: between the decision to send it and that moment it may have waited, or the process may have stood still.
    """

    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    phase: Phase
    order_type: str
    time_in_force: str
    collar_low: Decimal | None
    collar_high: Decimal | None
    trade_session: date
    submitted_at: datetime
    limit_price: Decimal | None = None
    not_after: datetime | None = None
    sent_before: bool = True
    last_word: LastWord | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class BrokerOrder:
    """What the broker says of an order; quantities in shares, positive; `reason` where it did not fill.

    `symbol`, `side` (`buy` or `sell`) and `quantity` are the broker's own words about it, empty or None where it does
    not say; `client_order_id` is empty for an order that others sent without one.
    """

    client_order_id: str
    broker_order_id: str
    status: OrderStatus
    filled_quantity: Decimal
    reason: str
    symbol: str = ""
    side: str = ""
    quantity: Decimal | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.status in TERMINAL


def order_under_id(found: BrokerOrder, request: OrderRequest) -> "BrokerOrder | Rejected":
    """The answer to submitting under a client id that the broker has already: that order, if it is the requested one.

    An order for something else under our id means that ours can never exist, which is a rejection.
    """
    wanted = "buy" if request.side in ("buy", "cover") else "sell"
    same = (
        found.symbol in ("", request.symbol)
        and found.side in ("", wanted)
        and found.quantity in (None, request.quantity)
    )
    if same:
        return found
    return Rejected(
        f"the client id {found.client_order_id} is taken by another order: {found.side} {found.quantity} {found.symbol}"
    )


@dataclass(frozen=True)
class Rejected:
    """The broker certainly did not take the order, or it was never sent; `code` is the broker's own, or empty."""

    reason: str
    code: str = ""


@dataclass(frozen=True)
class Unknown:
    """Nobody can say yet whether there is an order: ask again by its client id. Neither rejected nor flat."""

    reason: str


def not_sent(request: OrderRequest, reason: str) -> "Rejected | Unknown":
    """The answer where the request was not sent this time: a refusal only if it was never sent before either."""
    return Unknown(f"not sent this time: {reason}") if request.sent_before else Rejected(reason, "not sent")


def last_refusal(request: OrderRequest) -> "Rejected | Unknown | None":
    """The answer where the last word on the request is that it must not be sent; None if it may."""
    why = request.last_word() if request.last_word is not None else None
    return None if why is None else not_sent(request, why)


def refusal_of(able: Capabilities, request: OrderRequest) -> str | None:
    """Why such an order can not be sent to a venue of these abilities, whatever its market does; None if it can."""
    refusal = able.refusal(
        request.client_order_id, request.side, request.quantity, request.order_type, request.time_in_force
    )
    if refusal is None and (request.limit_price is not None) != (request.order_type == "limit"):
        return f"a limit price goes with limit orders and with no other, not with {request.order_type}"
    return refusal


@dataclass(frozen=True)
class Absent:
    """The broker, asked, has never had an order under this id.

    After a submission without an answer it may still arrive; `Capabilities.absence_is_final` says from when not.
    """


Submission = BrokerOrder | Rejected | Unknown
Lookup = BrokerOrder | Absent | Unknown


@dataclass(frozen=True)
class Clock:
    """The broker's own time in UTC, and whether its market is open, with the next open and close where it says so."""

    now: datetime
    is_open: bool | None = None
    next_open: datetime | None = None
    next_close: datetime | None = None


@dataclass(frozen=True)
class AccountStatus:
    """The account as the broker sees it, money in `currency`; a figure that it does not give is None.

    `number` is the broker's own id of the account. `blocked` says why no order may be sent, None if orders may.
    `shorting`: whether this account may sell short, None where the broker does not say.
    """

    number: str
    cash: Decimal
    equity: Decimal | None = None
    buying_power: Decimal | None = None
    currency: str = "USD"
    blocked: str | None = None
    shorting: bool | None = None


@dataclass(frozen=True)
class Quote:
    """The latest prices of a symbol, in currency, and when they were quoted; a side that nobody quotes is None."""

    symbol: str
    bid: Decimal | None
    ask: Decimal | None
    last: Decimal | None
    at: datetime


@dataclass(frozen=True)
class Movement:
    """A change of the account that is no trade: a dividend, split, fee, interest, transfer.

    `quantity` is the signed change of shares of `symbol` (empty: none), `cash` the change of cash in currency.
    """

    movement_id: str
    kind: str
    symbol: str
    quantity: Decimal
    cash: Decimal
    session: date
    at: datetime
    detail: str = ""


class Broker(Protocol):
    """One account at one broker. Questions raise `BrokerUnavailable` where they get no answer; sending never raises it.

    `account_id` is the account's id in the ledger; `base_url` where the broker is reached.
    """

    name: str
    account_id: str
    base_url: str
    capabilities: Capabilities

    def clock(self) -> Clock:
        """The broker's time, for the skew against ours and for its cut-offs."""

    def account(self) -> AccountStatus:
        """Cash, equity, buying power and whether the account may trade."""

    def positions(self) -> dict[str, Decimal]:
        """Signed shares by symbol, without zeros."""

    def cash(self) -> Decimal:
        """Settled and unsettled cash, in currency."""

    def open_orders(self) -> Sequence[BrokerOrder]:
        """Every working order of the account, whoever sent it."""

    def find(self, client_order_id: str) -> Lookup:
        """What became of the order under this id. Never raises for a broker that is silent: that is `Unknown`."""

    def submit(self, request: OrderRequest) -> Submission:
        """Sends one order, in one request, if the request's last word is not against it at that very moment.

        Under an id that the broker has already, the answer is the order it has.

        `Rejected` only where there certainly is no order; an error raised out of here leaves the outcome unknown.
        """

    def cancel(self, client_order_id: str, reason: str) -> Lookup:
        """Asks to end what is still working of the order, and says how it stands then; an ended one stays as it is.

        The order may be working still when this returns: a cancel is done when the broker says so.
        """

    def fills_since(self, fill_id: str | None) -> Sequence[Fill]:
        """At least the account's fills after that one (None: all that the broker remembers), in their order.

        Fills from before it may come again, and fills of orders that others sent come too.
        """

    def movements_since(self, since: datetime) -> Sequence[Movement]:
        """What changed the account without a trade; empty where `reports_movements` is false. May repeat itself."""

    def borrow(self, symbols: Sequence[str]) -> Mapping[str, Borrow]:
        """Whether each symbol can be borrowed now."""

    def quotes(self, symbols: Sequence[str]) -> Mapping[str, Quote]:
        """The latest quotes, for checking a plan against the market; symbols without one are left out."""

    def buying_power_needed(self, request: OrderRequest, quote: Quote | None) -> Decimal | None:
        """How much buying power the order takes, in currency, by the broker's own rule; None where that is not known.

        A reduction takes none. `quote` is the latest one; the broker may be asked.
        """


@runtime_checkable
class AuctionBroker(Protocol):
    """A broker that is its own market: it has to be told the opening prices, and fills on them."""

    def fill_at_open(self, trade_session: date, opens: Mapping[str, Decimal], now: datetime) -> int:
        """Ends every order working for the open of `trade_session`; says how many filled."""
