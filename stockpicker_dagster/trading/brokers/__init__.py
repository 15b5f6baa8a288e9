"""The protocol of a broker: what execution asks of any of them, and what each says it can do.

An adapter translates; it never decides, retries a submission by itself, or reads "no answer" as "no order".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, Protocol, runtime_checkable

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.trading.ledger import Fill
from stockpicker_dagster.trading.rebalance import Phase, Side

OrderStatus = Literal["working", "filled", "cancelled", "rejected"]
TERMINAL: frozenset[OrderStatus] = frozenset({"filled", "cancelled", "rejected"})


class DuplicateClientOrder(StockPickerError):
    """The broker already has an order under this client id; ask for it by that id."""


@dataclass(frozen=True)
class Capabilities:
    """What a broker can do, and how its adapter was verified.

    `unique_client_ids`: a second order under one client id is refused for ever, so that an unknown order may be sent
    again safely. `holds_openings`: openings may be handed in while reductions are working, the broker keeps them back
    until those have ended. `shorts`: stocks can be sold short.
    """

    unique_client_ids: bool
    holds_openings: bool
    shorts: bool
    verified: str


@dataclass(frozen=True)
class OrderRequest:
    """One order to be sent; `quantity` in whole shares, positive, collar in currency (None: no bound)."""

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


@dataclass(frozen=True)
class BrokerOrder:
    """What the broker says of an order; `filled_quantity` in shares, positive; `reason` where it did not fill."""

    client_order_id: str
    broker_order_id: str
    status: OrderStatus
    filled_quantity: Decimal
    reason: str

    @property
    def ended(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.status in TERMINAL


class Broker(Protocol):
    """One account at one broker."""

    name: str
    account_id: str
    capabilities: Capabilities

    def submit(self, request: OrderRequest) -> BrokerOrder:
        """Sends one order, once; raises `DuplicateClientOrder`. Any other error leaves the outcome unknown."""

    def find(self, client_order_id: str) -> BrokerOrder | None:
        """The order under this id, or None if the broker never had one."""

    def open_orders(self) -> Sequence[BrokerOrder]:
        """Every working order of the account, whoever sent it."""

    def cancel(self, client_order_id: str, reason: str) -> BrokerOrder:
        """Cancels what is still working of the order and returns what became of it."""

    def positions(self) -> dict[str, Decimal]:
        """Signed shares by symbol, without zeros."""

    def cash(self) -> Decimal:
        """Settled and unsettled cash, in currency."""

    def fills_since(self, fill_id: str | None) -> Sequence[Fill]:
        """The account's fills after that one (None: from the beginning), in their order."""


@runtime_checkable
class AuctionBroker(Protocol):
    """A broker that is its own market: it has to be told the opening prices, and fills on them."""

    def fill_at_open(self, trade_session: date, opens: Mapping[str, Decimal], now: datetime) -> int:
        """Ends every order working for the open of `trade_session`; says how many filled."""
