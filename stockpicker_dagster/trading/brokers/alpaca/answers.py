"""What Alpaca's answers mean in the terms of the protocol. Field names follow its OpenAPI document of the trading API.

An answer is read so that a live order is never lost: a status that nobody has heard of is `working`, and so is an ended
order whose figures cannot be read. Decimals are strings there and stay exact here; nothing becomes a float.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from stockpicker_dagster.trading.brokers import (
    AccountStatus,
    Borrow,
    BrokerOrder,
    BrokerUnavailable,
    Clock,
    Fill,
    Movement,
    OrderStatus,
    Quote,
)

ZERO = Decimal(0)
NEW_YORK = ZoneInfo("America/New_York")

_STATUSES: Mapping[str, OrderStatus] = {
    "new": "working",
    "partially_filled": "working",
    "done_for_day": "working",
    "pending_cancel": "working",
    "pending_replace": "working",
    "accepted": "working",
    "pending_new": "working",
    "accepted_for_bidding": "working",
    "stopped": "working",
    "suspended": "working",
    "calculated": "working",
    "held": "working",
    "replaced": "working",
    "filled": "filled",
    "canceled": "cancelled",
    "expired": "expired",
    "rejected": "rejected",
}
"""`replaced` lives on as another order; who asks follows it there."""

_NO_CHANGE_OF_SHARES = ("DIV", "INT", "FEE", "PTC", "PTR", "CSD", "CSW", "JNLC", "ACATC", "CFEE", "CGD")
"""Types of activity, by how they begin, whose `qty` changes no shares: for dividends it is what they were paid on."""


def to_alpaca(symbol: str) -> str:
    """A symbol as Alpaca writes it, share classes behind a dot."""
    return symbol.replace("-", ".")


def from_alpaca(symbol: object) -> str:
    """The spelling used here."""
    return str(symbol or "").replace(".", "-").replace("/", "-")


def decimal_of(value: object) -> Decimal | None:
    """A figure, exact; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return None
    try:
        figure = Decimal(value)
    except InvalidOperation:
        return None
    return figure if figure.is_finite() else None


def time_of(value: object) -> datetime | None:
    """An instant in UTC; Alpaca writes nanoseconds, of which microseconds are kept. None for what is none."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo is not None else found.replace(tzinfo=UTC)


def read_order(body: Mapping[str, Any]) -> BrokerOrder:
    """An order, read so that it is `working` in case of doubt; the reason says what was doubtful."""
    said = body.get("status")
    status: OrderStatus = _STATUSES.get(said, "working") if isinstance(said, str) else "working"
    reason = "" if isinstance(said, str) and said in _STATUSES else f"the status {said!r} is not known here"
    quantity, filled = decimal_of(body.get("qty")), decimal_of(body.get("filled_qty"))
    if filled is None and status == "rejected":
        filled = ZERO
    if filled is None and status == "filled":
        filled = quantity
    if filled is None and status != "working":
        status, reason = "working", f"the order is {said}, but how much of it was filled is not said"
    if status == "rejected" and filled:
        status, reason = "working", f"the order is rejected and {filled} shares of it are filled"
    if status in ("cancelled", "expired", "rejected") and not reason:
        reason = str(body.get("reject_reason") or "") or f"{said} at the broker"
    return BrokerOrder(
        client_order_id=str(body.get("client_order_id") or ""),
        broker_order_id=str(body.get("id") or ""),
        status=status,
        filled_quantity=filled or ZERO,
        reason=reason,
        symbol=from_alpaca(body.get("symbol")),
        side=str(body.get("side") or ""),
        quantity=quantity,
    )


def read_account(body: Mapping[str, Any]) -> AccountStatus:
    """The account; raises `BrokerUnavailable` where number or cash is missing."""
    number, cash = body.get("account_number") or body.get("id"), decimal_of(body.get("cash"))
    if not isinstance(number, str) or cash is None:
        raise BrokerUnavailable("Alpaca's answer about the account lacks its number or its cash; ask again later")
    shorting = body.get("shorting_enabled")
    return AccountStatus(
        number=number,
        cash=cash,
        equity=decimal_of(body.get("equity")),
        buying_power=decimal_of(body.get("buying_power")),
        currency=str(body.get("currency") or "USD"),
        blocked=_blocked(body),
        shorting=shorting if isinstance(shorting, bool) else None,
    )


def _blocked(body: Mapping[str, Any]) -> str | None:
    for flag, why in (
        ("account_blocked", "the account is blocked"),
        ("trading_blocked", "trading is blocked"),
        ("trade_suspended_by_user", "its holder has suspended trading"),
    ):
        if body.get(flag) is not None and body[flag] is not False:
            return f"{why} at Alpaca"
    if body.get("status") != "ACTIVE":
        return f"the account is {body.get('status')!r} at Alpaca, not ACTIVE"
    return None


def read_position(body: Mapping[str, Any]) -> tuple[str, Decimal]:
    """Symbol and signed shares; raises `BrokerUnavailable` where either is missing, for that must not look flat."""
    symbol, quantity = from_alpaca(body.get("symbol")), decimal_of(body.get("qty"))
    if not symbol or quantity is None:
        raise BrokerUnavailable("Alpaca's answer has a position without symbol or quantity; ask again later")
    return symbol, -abs(quantity) if body.get("side") == "short" else quantity


def read_clock(body: Mapping[str, Any]) -> Clock:
    """The market's clock; raises `BrokerUnavailable` where the time is missing."""
    now = time_of(body.get("timestamp"))
    if now is None:
        raise BrokerUnavailable("Alpaca's clock does not say what time it is; ask again later")
    is_open = body.get("is_open")
    return Clock(
        now,
        is_open if isinstance(is_open, bool) else None,
        time_of(body.get("next_open")),
        time_of(body.get("next_close")),
    )


def read_fill(body: Mapping[str, Any], client_order_id: str) -> Fill:
    """A fill, whole or partial; Alpaca charges no commission on it. Raises `BrokerUnavailable` where a figure lacks."""
    identity, symbol = body.get("id"), from_alpaca(body.get("symbol"))
    quantity, price = decimal_of(body.get("qty")), decimal_of(body.get("price"))
    filled_at, side = time_of(body.get("transaction_time")), str(body.get("side") or "")
    if not isinstance(identity, str) or not symbol or quantity is None or price is None or filled_at is None:
        raise BrokerUnavailable(f"Alpaca's answer has a fill that cannot be read ({identity!r}); ask again later")
    if not side.startswith(("buy", "sell")):
        raise BrokerUnavailable(f"Alpaca's fill {identity!r} has the side {side!r}; allowed: buy, sell, sell_short")
    return Fill(
        fill_id=identity,
        client_order_id=client_order_id,
        symbol=symbol,
        quantity=abs(quantity) if side.startswith("buy") else -abs(quantity),
        price=price,
        commission=ZERO,
        session=filled_at.astimezone(NEW_YORK).date(),
        filled_at=filled_at,
    )


def read_movement(body: Mapping[str, Any]) -> Movement | None:
    """What an activity without a trade did; None for a cancelled one. Raises `BrokerUnavailable` without its id."""
    identity, kind = body.get("id"), str(body.get("activity_type") or "")
    if not isinstance(identity, str):
        raise BrokerUnavailable("Alpaca's answer has an activity without an id; ask again later")
    if body.get("status") == "canceled":
        return None
    at = time_of(body.get("created_at")) or time_of(body.get("date"))
    session = _day(body.get("date")) or (at.astimezone(NEW_YORK).date() if at else None)
    if session is None:
        raise BrokerUnavailable(f"Alpaca's activity {identity!r} has no date; ask again later")
    moves_shares = not kind.startswith(_NO_CHANGE_OF_SHARES)
    return Movement(
        movement_id=identity,
        kind=kind,
        symbol=from_alpaca(body.get("symbol")),
        quantity=(decimal_of(body.get("qty")) or ZERO) if moves_shares else ZERO,
        cash=decimal_of(body.get("net_amount")) or ZERO,
        session=session,
        at=at or datetime(session.year, session.month, session.day, tzinfo=UTC),
        detail=str(body.get("activity_sub_type") or body.get("description") or ""),
    )


def read_borrow(body: Mapping[str, Any]) -> Borrow:
    """Whether an asset can be borrowed; `borrow_status` counts, the older flag where that is missing."""
    flags = (body.get("shortable"), body.get("tradable"))
    if False in flags or body.get("status") == "inactive":
        return "none"
    said, older = body.get("borrow_status"), body.get("easy_to_borrow")
    if said == "easy_to_borrow":
        return "easy"
    if said == "hard_to_borrow":
        return "hard"
    if said is None and isinstance(older, bool):
        return "easy" if older else "hard"
    return "unknown"


def read_quote(symbol: str, body: Mapping[str, Any]) -> Quote | None:
    """The latest quote and trade of a snapshot; None where neither is there. A price of 0 means that nobody quotes."""
    quote, trade = _mapping(body.get("latestQuote")), _mapping(body.get("latestTrade"))
    bid, ask, last = (decimal_of(figure) or None for figure in (quote.get("bp"), quote.get("ap"), trade.get("p")))
    times = [moment for moment in (time_of(quote.get("t")), time_of(trade.get("t"))) if moment is not None]
    if not times or (bid is None and ask is None and last is None):
        return None
    return Quote(symbol, bid, ask, last, max(times))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _day(value: object) -> date | None:
    try:
        return date.fromisoformat(str(value)[:10])
    except ValueError:
        return None
