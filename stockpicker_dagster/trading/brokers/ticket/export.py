"""The list of orders that a person takes to the broker: as CSV for programs, as a page to print and tick off.

Reductions come first and openings after them, with what to do about each. From the moment an order is exported it
counts as possibly placed.
"""

import csv
import html
import io
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, Row, select, update

from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.brokers.ticket import CANCEL_ASKED
from stockpicker_dagster.trading.rebalance import PHASES

COLUMNS = (
    "order",
    "do",
    "phase",
    "side",
    "symbol",
    "quantity",
    "order_type",
    "limit_price",
    "time_in_force",
    "not_below",
    "not_above",
    "session",
)

_SIDES = {"buy": "Buy", "sell": "Sell", "cover": "Buy to cover", "short": "Sell short"}


@dataclass(frozen=True)
class Ticket:
    """One line of the list. `do`: `place`, or `cancel` for an order that was handed out before."""

    order: str
    do: str
    phase: str
    side: str
    symbol: str
    quantity: Decimal
    order_type: str
    limit_price: Decimal | None
    time_in_force: str
    not_below: Decimal | None
    not_above: Decimal | None
    session: str


def hand_out(engine: Engine, account: str, now: datetime) -> list[Ticket]:
    """What is to be done at the broker, and from now on may have been: cancels, then reductions, then openings.

    Handing out again lists the same: nothing is lost if the page is.
    """
    table = ledger.ticket_orders
    here = (table.c.account == account) & table.c.status.in_(("working", CANCEL_ASKED))
    with transaction(engine) as connection:
        ledger.lock_account(connection, account)
        rows = connection.execute(select(table).where(here)).all()
        connection.execute(update(table).where(here, table.c.exported_at.is_(None)).values(exported_at=now))
    return sorted((_ticket(row) for row in rows), key=lambda t: (t.do != "cancel", PHASES.index(t.phase), t.symbol))


def as_csv(tickets: list[Ticket]) -> str:
    """The list as CSV with a header; what a person fills in is described in `reports`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for ticket in tickets:
        writer.writerow(["" if (value := getattr(ticket, name)) is None else _text(value) for name in COLUMNS])
    return out.getvalue()


def as_checklist(tickets: list[Ticket], account: str, now: datetime) -> str:
    """The list as a page to print: HTML that loads nothing and runs nothing."""
    rows = "\n".join(_line(number, ticket) for number, ticket in enumerate(tickets, start=1))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Orders for {html.escape(account)}</title>
<style>
body {{ font: 12pt sans-serif; margin: 2em; }} table {{ border-collapse: collapse; width: 100%; }}
td, th {{ border: 1px solid #777; padding: .3em .5em; text-align: left; }} td.box {{ width: 1.5em; }}
td.order {{ font-family: monospace; font-size: 8pt; word-break: break-all; }} tr {{ page-break-inside: avoid; }}
</style></head><body>
<h1>Orders for account {html.escape(account)}</h1>
<p>Printed {now:%Y-%m-%d %H:%M} UTC. Work from the top: cancels, then reductions, and openings only once every
reduction has been filled or ended. Write down quantity, price, fees and time of each fill, then report them with
<code>stockpicker broker report</code>.</p>
<table><thead><tr><th></th><th>#</th><th>What</th><th>Symbol</th><th>Shares</th><th>Type</th><th>Session</th>
<th>Only between</th><th>Filled / price / fees / time</th><th>Order</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def _ticket(row: Row[Any]) -> Ticket:
    return Ticket(
        order=row.client_order_id,
        do="cancel" if row.status == CANCEL_ASKED else "place",
        phase=row.phase,
        side=row.side,
        symbol=row.symbol,
        quantity=row.quantity - row.filled_quantity,
        order_type=row.order_type,
        limit_price=row.limit_price,
        time_in_force=row.time_in_force,
        not_below=row.collar_low,
        not_above=row.collar_high,
        session=row.trade_session.isoformat(),
    )


def _line(number: int, ticket: Ticket) -> str:
    what = f"CANCEL: {_SIDES[ticket.side]}" if ticket.do == "cancel" else _SIDES[ticket.side]
    kind = ticket.order_type if ticket.limit_price is None else f"limit {_text(ticket.limit_price)}"
    when = " at the open" if ticket.time_in_force == "opg" else " for the day"
    bounds = [_text(figure) for figure in (ticket.not_below, ticket.not_above) if figure is not None]
    cells = [
        str(number),
        f"{what} ({ticket.phase})",
        ticket.symbol,
        _text(ticket.quantity),
        kind + when,
        ticket.session,
        " and ".join(bounds),
        "",
    ]
    shown = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    return f'<tr><td class="box">&#9744;</td>{shown}<td class="order">{html.escape(ticket.order)}</td></tr>'


def _text(value: object) -> str:
    return format(value, "f") if isinstance(value, Decimal) else str(value)
