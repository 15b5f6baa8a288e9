"""Do the books agree? The ledger's fills and corporate actions against its positions, and both against the broker.

A difference means that something happened which the ledger does not know, so trading halts and says so; putting it
right is a person's work.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, Engine, Table, select

from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import halt, halt_in_force, read_account
from stockpicker_dagster.trading.brokers import Broker

WHO = "reconciliation"
ZERO = Decimal(0)


@dataclass(frozen=True)
class Reconciliation:
    """The differences found, one sentence each; none means that the books agree."""

    account: str
    differences: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether no difference was found."""
        return not self.differences


def import_fills(engine: Engine, broker: Broker, now: datetime) -> int:
    """Enters the broker's fills that the ledger does not have yet; says how many."""
    with engine.connect() as connection:
        last = ledger.last_fill(connection, broker.account_id)
    reported = broker.fills_since(last)
    if not reported:
        return 0
    with transaction(engine) as connection:
        ledger.lock_account(connection, broker.account_id)
        return ledger.record_fills(connection, broker.account_id, reported, now)


def reconcile(engine: Engine, broker: Broker, now: datetime) -> Reconciliation:
    """Compares the account's books, to the share and to the last decimal of cash; halts the account if they differ."""
    import_fills(engine, broker, now)
    with engine.connect() as connection:
        differences = tuple(_differences(connection, broker))
    if differences and halt_in_force(engine, broker.account_id) is None:
        halt(engine, broker.account_id, WHO, f"the books differ: {'; '.join(differences)}", now)
    return Reconciliation(broker.account_id, differences)


def _differences(connection: Connection, broker: Broker) -> Iterator[str]:
    account = broker.account_id
    book = ledger.held_quantities(connection, account)
    booked: dict[str, Decimal] = {}
    _add_up(booked, connection, ledger.fills, "quantity", account)
    _add_up(booked, connection, ledger.corporate_actions, "quantity_change", account)
    yield from _unequal("fills plus corporate actions", booked, book)
    yield from _unequal(f"broker {broker.name}", broker.positions(), book)
    movements = ledger.cash_movements
    moved = sum(connection.execute(select(movements.c.amount).where(movements.c.account == account)).scalars(), ZERO)
    cash = read_account(connection, account).cash
    for source, amount in (("movements", moved), (f"broker {broker.name}", broker.cash())):
        if amount != cash:
            yield f"cash is {cash} in the ledger and {amount} by {source}"


def _add_up(totals: dict[str, Decimal], connection: Connection, table: Table, column: str, account: str) -> None:
    for symbol, quantity in connection.execute(
        select(table.c.symbol, table.c[column]).where(table.c.account == account)
    ):
        totals[symbol] = totals.get(symbol, ZERO) + quantity


def _unequal(source: str, theirs: Mapping[str, Decimal], ours: Mapping[str, Decimal]) -> Iterator[str]:
    for symbol in sorted({*theirs, *ours}):
        there, here = theirs.get(symbol, ZERO), ours.get(symbol, ZERO)
        if there != here:
            yield f"{symbol} is {here} shares in the ledger and {there} by {source}"
