"""What answers of Interactive Brokers' Web API mean in the terms of the protocol.

Field names follow its OpenAPI document; `order_ref` of a live order and the numbers of market data fields are not in it
and follow the public reference. Numbers come as numbers or as text with thousands separators, and are read exactly. An
order is `working` in case of doubt.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from stockpicker_dagster.trading.brokers import BrokerOrder, BrokerUnavailable, Fill, OrderStatus, Quote

ZERO = Decimal(0)
NEW_YORK = ZoneInfo("America/New_York")

LAST, BID, ASK, SHORTABLE = "31", "84", "86", "7636"
"""Market data fields: prices, and how many shares can be borrowed."""

_STATUSES: Mapping[str, OrderStatus] = {
    "PendingSubmit": "working",
    "PreSubmitted": "working",
    "Submitted": "working",
    "PendingCancel": "working",
    "WarnState": "working",
    # Not at the exchange, but alive: it can become active again.
    "Inactive": "working",
    "Filled": "filled",
    "Cancelled": "cancelled",
}
_FIGURE = re.compile(r"-?[0-9][0-9,]*(\.[0-9]+)?|-?\.[0-9]+")
_CORRECTION = re.compile(r"(.+)\.([0-9]+)")


def to_interactive_brokers(symbol: str) -> str:
    """A symbol as Interactive Brokers writes it, share classes behind a space."""
    return symbol.replace("-", " ")


def from_interactive_brokers(symbol: object) -> str:
    """The spelling used here."""
    return str(symbol or "").strip().replace(" ", "-").replace(".", "-")


def decimal_of(value: object) -> Decimal | None:
    """A figure, exact, out of a number or of text such as `1,977.60 USD`; None for what is none."""
    if isinstance(value, str):
        found = _FIGURE.search(value)
        value = found.group().replace(",", "") if found else None
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    try:
        figure = Decimal(value)
    except InvalidOperation:
        return None
    return figure if figure.is_finite() else None


def read_order(body: Mapping[str, Any], client_order_id: str | None = None) -> BrokerOrder:
    """A live order, as the list of orders shows it; `client_order_id` where it is known from elsewhere."""
    said = body.get("status")
    status: OrderStatus = _STATUSES.get(said, "working") if isinstance(said, str) else "working"
    known = isinstance(said, str) and said in _STATUSES
    reason = str(body.get("order_cancellation_by_system_reason") or "")
    if not known:
        reason = f"the status {said!r} is not known here"
    elif said == "Inactive":
        reason = reason or "not active at the exchange"
    quantity, filled = decimal_of(body.get("totalSize")), decimal_of(body.get("filledQuantity"))
    if filled is None and status == "filled":
        filled = quantity
    if filled is None and status == "cancelled":
        status, reason = "working", "the order is cancelled, but how much of it was filled is not said"
    if status == "filled" and quantity is not None and filled is not None and filled < quantity:
        status, reason = "working", f"the order is Filled, but {filled} of {quantity} shares are"
    side = str(body.get("side") or "").upper()
    return BrokerOrder(
        client_order_id=client_order_id or str(body.get("order_ref") or ""),
        broker_order_id=str(body.get("orderId") or ""),
        status=status,
        filled_quantity=filled or ZERO,
        reason=reason,
        symbol=from_interactive_brokers(body.get("ticker")),
        side="buy" if side.startswith("B") else "sell" if side.startswith("S") else "",
        quantity=quantity,
    )


def read_fill(body: Mapping[str, Any]) -> Fill:
    """One execution; raises `BrokerUnavailable` where a figure lacks, for a fill must not be left out."""
    identity, symbol = body.get("execution_id"), from_interactive_brokers(body.get("symbol"))
    quantity, price = decimal_of(body.get("size")), decimal_of(body.get("price"))
    at, side = _time(body.get("trade_time_r")), str(body.get("side") or "").upper()
    if not isinstance(identity, str) or not symbol or quantity is None or price is None or at is None:
        raise BrokerUnavailable(f"an execution of Interactive Brokers cannot be read ({identity!r}); ask again later")
    if side[:1] not in ("B", "S"):
        raise BrokerUnavailable(f"the execution {identity!r} has the side {side!r}; allowed: B, S")
    return Fill(
        fill_id=identity,
        client_order_id=str(body.get("order_ref") or ""),
        symbol=symbol,
        quantity=abs(quantity) if side.startswith("B") else -abs(quantity),
        price=price,
        commission=abs(decimal_of(body.get("commission")) or ZERO),
        session=at.astimezone(NEW_YORK).date(),
        filled_at=at,
    )


def latest_corrections(bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Executions without those that were corrected: a correction has the same id but for a higher last number."""
    newest: dict[str, tuple[int, dict[str, Any]]] = {}
    for body in bodies:
        identity = str(body.get("execution_id"))
        found = _CORRECTION.fullmatch(identity)
        stem, number = (found.group(1), int(found.group(2))) if found else (identity, 0)
        if stem not in newest or number >= newest[stem][0]:
            newest[stem] = number, body
    return [body for _, body in newest.values()]


def read_position(body: Mapping[str, Any]) -> tuple[str, Decimal]:
    """Symbol and signed shares; raises `BrokerUnavailable` where either is missing, for that must not look flat."""
    symbol = from_interactive_brokers(body.get("ticker") or body.get("contractDesc"))
    quantity = decimal_of(body.get("position"))
    if not symbol or quantity is None:
        raise BrokerUnavailable("a position at Interactive Brokers has no symbol or no quantity; ask again later")
    return symbol, quantity


def read_quote(symbol: str, body: Mapping[str, Any]) -> Quote | None:
    """The latest prices of a snapshot; None where there are none yet. A last price may carry a letter in front."""
    bid, ask, last = (decimal_of(body.get(field)) or None for field in (BID, ASK, LAST))
    at = _time(body.get("_updated"))
    if at is None or (bid is None and ask is None and last is None):
        return None
    return Quote(symbol, bid, ask, last, at)


def _time(value: object) -> datetime | None:
    """A Unix time in milliseconds or seconds, in UTC."""
    figure = decimal_of(value)
    if figure is None or figure <= 0:
        return None
    seconds = figure / 1000 if figure > 10**11 else figure
    try:
        return datetime.fromtimestamp(float(seconds), UTC)
    except (OverflowError, ValueError, OSError):
        return None
