"""What a venue can do, published by its adapter: planning and execution ask here, they never ask for a broker's name.

Cut-offs are offsets from a session's own open or close, so that half-days are right without a table of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

if TYPE_CHECKING:  # numpy comes with it, which a broker without cut-offs has no use for
    from stockpicker_dagster.market.calendar import TradingCalendar

OrderType = Literal["market", "limit"]
TimeInForce = Literal["day", "opg", "cls", "ioc"]
"""`day`: until the close. `opg` and `cls`: in the opening or closing auction only. `ioc`: at once or not at all."""

SESSION_ORDERS: frozenset[tuple[OrderType, TimeInForce]] = frozenset(
    {("market", "day"), ("limit", "day"), ("market", "opg"), ("limit", "opg"), ("market", "cls"), ("limit", "cls")}
)


@dataclass(frozen=True)
class CutOff:
    """The last moment at which a venue takes orders of one time in force: `before` the session's `anchor`.

    Orders for the next session are taken from `reopens` on, a time of day at the exchange (None: once the session has
    closed).
    """

    anchor: Literal["open", "close"]
    before: timedelta
    reopens: time | None = None

    def at(self, opens_at: datetime, closes_at: datetime) -> datetime:
        """The moment, for a session with these hours; from this very moment on the order is refused."""
        return (opens_at if self.anchor == "open" else closes_at) - self.before


@dataclass(frozen=True)
class Capabilities:
    """What a broker can do, and how its adapter was verified.

    `orders`: the pairs of order type and time in force that are taken, `fractional_orders` those that are taken for
    fractions too; `cut_offs`: until when, by time in force.
    `shorts`: stocks can be sold short, in whole shares everywhere; `fractional_longs`: longs can be held in fractions.
    `holds_openings`: openings may be handed in while reductions are working, the broker keeps them back until those
    have ended. `client_id_length`: the longest client id. `client_id_window`: for how long a second order under the
    same client id is refused (None: for ever). Within it, an order whose outcome is unknown may be sent again under
    its id; after it, never. `late_arrival`: how long after a submission without an answer the order may still appear,
    so that the broker not knowing it proves nothing yet. `replaces`: orders can be changed in place safely.
    `requests_per_minute`: the most that may be asked of it (None: no limit). `reports_movements`: it says itself what
    dividends, splits, fees and interest did to the account. `manual`: a person places the orders. `embedded`: its books
    are kept here, so that they agree with the ledger to the last decimal at every instant.
    """

    shorts: bool
    verified: str
    fractional_longs: bool = False
    orders: frozenset[tuple[OrderType, TimeInForce]] = SESSION_ORDERS
    fractional_orders: frozenset[tuple[OrderType, TimeInForce]] = frozenset()
    cut_offs: Mapping[TimeInForce, CutOff] = field(default_factory=dict)
    holds_openings: bool = False
    client_id_length: int = 64
    client_id_window: timedelta | None = None
    late_arrival: timedelta = timedelta()
    replaces: bool = False
    requests_per_minute: int | None = None
    reports_movements: bool = False
    manual: bool = False
    embedded: bool = False

    def may_send_again(self, first_sent_at: datetime, now: datetime) -> bool:
        """Whether sending the same client id once more cannot make a second order."""
        return self.client_id_window is None or now - first_sent_at < self.client_id_window

    def absence_is_final(self, last_sent_at: datetime, now: datetime) -> bool:
        """Whether a broker that does not know the order will never know it, unless it is sent again."""
        return now - last_sent_at >= self.late_arrival

    def latest_submission(self, time_in_force: TimeInForce, opens_at: datetime, closes_at: datetime) -> datetime | None:
        """Until when orders of this time in force are taken for a session with these hours; None without a cut-off."""
        cut_off = self.cut_offs.get(time_in_force)
        return None if cut_off is None else cut_off.at(opens_at, closes_at)

    def order_window(
        self, time_in_force: str, calendar: "TradingCalendar", session: date, zone: str = "America/New_York"
    ) -> tuple[datetime, datetime]:
        """From when until when an order has to be sent to trade in `session`, and not in the one before or after it."""
        before = calendar.previous_session(session)
        cut_off = self.cut_offs.get(time_in_force)  # type: ignore[call-overload]
        hours = calendar.open_at(session), calendar.close_at(session)
        earliest = calendar.close_at(before)
        if cut_off is None:
            return earliest, hours[1]
        if cut_off.reopens is not None:
            earliest = max(earliest, datetime.combine(before, cut_off.reopens, ZoneInfo(zone)).astimezone(UTC))
        return earliest, cut_off.at(*hours)

    def refusal(
        self, client_order_id: str, side: str, quantity: Decimal, order_type: str, time_in_force: str
    ) -> str | None:
        """Why such an order can not be sent here, whatever the market does; None if it can."""
        if not quantity.is_finite() or quantity <= 0:
            return f"{quantity} is no quantity of shares; allowed: more than 0"
        whole = quantity == quantity.to_integral_value()
        if side == "short" and not self.shorts:
            return "stocks can not be sold short here"
        if not whole and side in ("short", "cover"):
            return f"{quantity} shares to {side}: shorts are whole shares"
        if not whole and not self.fractional_longs:
            return f"{quantity} shares to {side}: only whole shares are traded here"
        if not whole and (order_type, time_in_force) not in self.fractional_orders:
            taken = ", ".join(sorted(f"{kind} {tif}" for kind, tif in self.fractional_orders)) or "none"
            return f"fractions of shares are not taken as {order_type} {time_in_force}; taken: {taken}"
        if (order_type, time_in_force) not in self.orders:
            taken = ", ".join(sorted(f"{kind} {tif}" for kind, tif in self.orders))
            return f"{order_type} orders with time in force {time_in_force} are not taken here; taken: {taken}"
        if not 0 < len(client_order_id) <= self.client_id_length:
            return f"the client id has {len(client_order_id)} characters; allowed: 1 to {self.client_id_length}"
        return None
