"""What a person brings back from the broker: fills, orders that ended, and what the account holds.

Files are CSV with a header. A file is taken as a whole or not at all, and taking it twice is taking it once. What does
not fit the orders that were handed out is refused with its line.
"""

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.brokers.ticket import CANCEL_ASKED

NEW_YORK = ZoneInfo("America/New_York")
ZERO = Decimal(0)

FILLS = ("order", "symbol", "side", "quantity", "price", "fees", "time")
ENDED = ("cancelled", "expired", "rejected")

_FIGURE = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_MOST_ROWS = 10_000
_FAR_OFF = Decimal("0.5")
"""A fill's price that far from the collar is taken for a slip of the pen."""


@dataclass(frozen=True)
class Taken:
    """What a file did: fills that were new, fills that were known, orders that ended without being filled whole."""

    fills: int
    known: int
    ended: int


@dataclass(frozen=True)
class _Line:
    number: int
    cells: Mapping[str, str]

    def refuse(self, why: str) -> InvalidInput:
        return InvalidInput(f"line {self.number}: {why}; nothing of the file was taken")

    def figure(self, name: str, default: Decimal | None = None) -> Decimal:
        text = self.cells.get(name, "")
        if not text and default is not None:
            return default
        if not _FIGURE.fullmatch(text):
            raise self.refuse(f"{name} is {text!r}; write a number such as 12.34, without currency or separators")
        try:
            return Decimal(text)
        except InvalidOperation as error:
            raise self.refuse(f"{name} is {text!r}, which is no number") from error


def take_fills(engine: Engine, account: str, text: str, who: str, now: datetime) -> Taken:
    """Takes a file of fills: columns `order, symbol, side, quantity, price, fees, time`, optionally `fill`, `status`.

    `order` is the id of the list, `quantity` in shares, `price` and `fees` in currency, `time` ISO with a zone (without
    one: New York). `fill` is the broker's own name of the fill; without it, equal lines of one file are different
    fills, and the same file again is the same fills. A line with `status` cancelled, expired or rejected ends its
    order, with or without a fill. Raises `InvalidInput`, naming the line.
    """
    lines = list(_lines(text, ("order",)))
    seen: Counter[tuple[str, ...]] = Counter()
    new = known = ended = 0
    with transaction(engine) as connection:
        ledger.lock_account(connection, account)
        for line in lines:
            row = _order(connection, account, line)
            if line.cells.get("quantity"):
                taken = _take_fill(connection, row, line, seen, who, now)
                new, known = new + taken, known + (not taken)
            elif not line.cells.get("status"):
                raise line.refuse("it has neither a quantity nor a status")
            ended += _take_status(connection, row.client_order_id, line)
    return Taken(new, known, ended)


def state_holdings(engine: Engine, account: str, text: str, cash: Decimal, who: str, now: datetime) -> int:
    """Takes what the account holds, as read off the broker's pages now: columns `symbol, quantity`; counts the names.

    It replaces the statement before. Raises `InvalidInput` for a name that comes twice, or a short position.
    """
    if not cash.is_finite():
        raise InvalidInput(f"the account's cash is {cash}; write a number")
    held: dict[str, str] = {}
    for line in _lines(text, ("symbol", "quantity")):
        symbol, quantity = line.cells["symbol"], line.figure("quantity")
        if not symbol or symbol in held:
            raise line.refuse(f"the symbol {symbol!r} is empty or comes twice")
        if quantity < 0:
            raise line.refuse(f"{symbol} is {quantity} shares; accounts of this kind hold no shorts")
        held[symbol] = format(quantity, "f")
    table = ledger.ticket_statements
    with transaction(engine) as connection:
        ledger.lock_account(connection, account)
        connection.execute(delete(table).where(table.c.account == account))
        connection.execute(
            insert(table).values(
                account=account, cash=cash, positions=json.dumps(held, sort_keys=True), stated_by=who, stated_at=now
            )
        )
    return len(held)


def _lines(text: str, needed: tuple[str, ...]) -> Iterator[_Line]:
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        names = [name.strip().lower() for name in reader.fieldnames or ()]
        missing = [name for name in needed if name not in names]
        if missing or len(set(names)) != len(names):
            raise InvalidInput(
                f"the file's header is {', '.join(names) or 'empty'}; it needs {', '.join(needed)}, each once"
            )
        reader.fieldnames = names
        for row in reader:
            if reader.line_num > _MOST_ROWS:
                raise InvalidInput(f"the file has more than {_MOST_ROWS} lines; nothing of it was taken")
            if None in row or None in row.values():
                raise InvalidInput(f"line {reader.line_num}: it has more or fewer cells than the header")
            yield _Line(reader.line_num, {name: (cell or "").strip() for name, cell in row.items()})
    except csv.Error as error:
        raise InvalidInput(f"line {reader.line_num}: the file is no CSV ({error})") from error


def _order(connection: Connection, account: str, line: _Line) -> Row[Any]:
    table = ledger.ticket_orders
    identity = line.cells["order"]
    here = (table.c.client_order_id == identity) & (table.c.account == account)
    row = connection.execute(select(table).where(here)).one_or_none()
    if row is None:
        raise line.refuse(f"the account has no order {identity!r}")
    for name, expected in (("symbol", row.symbol), ("side", row.side)):
        said = line.cells.get(name, "")
        if said and said.lower() != expected.lower():
            raise line.refuse(f"order {identity} is to {row.side} {row.symbol}, not {said}")
    return row


def _take_fill(
    connection: Connection, row: Row[Any], line: _Line, seen: Counter[tuple[str, ...]], who: str, now: datetime
) -> bool:
    quantity, price, fees = line.figure("quantity"), line.figure("price"), line.figure("fees", ZERO)
    filled_at = _time(line)
    if quantity <= 0 or price <= 0 or fees < 0:
        raise line.refuse(f"{quantity} shares at {price} with fees of {fees} is no fill")
    low, high = row.collar_low, row.collar_high
    if (low and price < low * (1 - _FAR_OFF)) or (high and price > high * (1 + _FAR_OFF)):
        raise line.refuse(f"the price {price} is far from the {low} to {high} that the order allowed")
    if not row.submitted_at <= filled_at <= now:
        raise line.refuse(
            f"the fill was at {filled_at:%Y-%m-%d %H:%M} UTC; the order is of {row.submitted_at:%Y-%m-%d %H:%M} UTC, "
            f"and it is {now:%Y-%m-%d %H:%M} UTC now"
        )
    identity = _fill_id(line, row, quantity, price, filled_at, seen)
    fills = ledger.ticket_fills
    here = fills.c.account == row.account
    if connection.execute(select(fills.c.fill_id).where(here, fills.c.fill_id == identity)).one_or_none():
        return False
    orders = ledger.ticket_orders
    current = connection.execute(select(orders).where(orders.c.client_order_id == row.client_order_id)).one()
    filled = current.filled_quantity + quantity
    if filled > row.quantity:
        raise line.refuse(f"{filled} shares would be filled of an order for {row.quantity}")
    last = connection.execute(select(func.max(fills.c.sequence)).where(here)).scalar_one() or 0
    sign = 1 if row.side in ("buy", "cover") else -1
    connection.execute(
        insert(fills).values(
            account=row.account,
            fill_id=identity,
            sequence=last + 1,
            client_order_id=row.client_order_id,
            symbol=row.symbol,
            quantity=sign * quantity,
            price=price,
            commission=fees,
            session=filled_at.astimezone(NEW_YORK).date(),
            filled_at=filled_at,
            imported_by=who,
        )
    )
    status = "filled" if filled == row.quantity else current.status
    connection.execute(
        update(orders)
        .where(orders.c.client_order_id == row.client_order_id)
        .values(filled_quantity=filled, status=status)
    )
    return True


def _take_status(connection: Connection, client_order_id: str, line: _Line) -> bool:
    said = line.cells.get("status", "").lower()
    if said in ("", "filled", "working"):
        return False
    if said not in ENDED:
        raise line.refuse(f"the status is {said!r}; allowed: {', '.join(ENDED)}, filled, working, or nothing")
    orders = ledger.ticket_orders
    open_ = (orders.c.client_order_id == client_order_id) & orders.c.status.in_(("working", CANCEL_ASKED))
    reason = line.cells.get("reason") or f"{said}, as reported"
    return bool(connection.execute(update(orders).where(open_).values(status=said, reason=reason)).rowcount)


def _time(line: _Line) -> datetime:
    text = line.cells.get("time", "")
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise line.refuse(f"the time is {text!r}; write it as 2024-03-05 09:31:07") from error
    return (found if found.tzinfo is not None else found.replace(tzinfo=NEW_YORK)).astimezone(UTC)


def _fill_id(
    line: _Line, row: Row[Any], quantity: Decimal, price: Decimal, filled_at: datetime, seen: Counter[tuple[str, ...]]
) -> str:
    """The broker's own name of the fill, or one made from what it says; the n-th equal line is the n-th such fill."""
    named = line.cells.get("fill", "")
    if named:
        content: tuple[str, ...] = ("named", named)
    else:
        figures = (format(quantity.normalize(), "f"), format(price.normalize(), "f"), filled_at.isoformat())
        seen[(row.client_order_id, *figures)] += 1
        content = (row.client_order_id, *figures, str(seen[(row.client_order_id, *figures)]))
    return "ticket-" + hashlib.sha256(json.dumps(content).encode()).hexdigest()[:40]
