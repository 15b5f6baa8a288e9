"""Do the books agree? The ledger's fills and corporate actions against its positions, and both against the broker.

A difference means that something happened which the ledger does not know, so trading halts and says so; putting it
right is a person's work (`accept`). At a real broker the account is not ours alone: what it held when it was first
seen is its opening, what the broker itself says of dividends, fees and splits is entered, and a little cash that
nobody explains is entered as such. Shares are never explained away.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, Engine, Table, func, insert, or_, select, update

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import halt, halt_in_force, read_account
from stockpicker_dagster.trading.brokers import Broker, Fill, Movement
from stockpicker_dagster.trading.brokers.by_security import by_security
from stockpicker_dagster.trading.tickers import Tickers, known_tickers

WHO = "reconciliation"
OPENING, ACCEPTED, UNEXPLAINED = "opening", "accepted", "unexplained"
ZERO = Decimal(0)

PAUSES = (0.1, 0.6, 1.0, 2.0)
"""Seconds between looks before a difference counts: at a real broker a fill shows in one list after another."""

UNEXPLAINED_CASH = Decimal("0.001")
"""How much of equity, or one unit of currency, may change within a day without an explanation: fees and rounding."""

_DAY = timedelta(days=1)
_LOOKS_BACK = timedelta(days=10)
"""How far back a broker is asked for what moved the account without a trade: it may tell late."""


@dataclass(frozen=True)
class Reconciliation:
    """The differences found, one sentence each; none means that the books agree. `entered`: what was newly booked."""

    account: str
    differences: tuple[str, ...]
    entered: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether no difference was found."""
        return not self.differences


def import_fills(engine: Engine, broker: Broker, now: datetime) -> int:
    """Enters the broker's fills of our orders that the ledger does not have yet; says how many."""
    return _import(engine, broker, now)[0]


def reconcile(
    engine: Engine,
    broker: Broker,
    now: datetime,
    tickers: Tickers | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Reconciliation:
    """Compares the account's books with the broker's, share by share; halts the account if they differ.

    `tickers` are what the broker calls securities, those that the ledger knows by default. `wait` passes the time until
    a real broker is looked at again. Raises `BrokerUnavailable`; nothing is known then, and nothing is halted.
    """
    broker = _named(engine, broker, tickers)
    entered = [] if broker.capabilities.embedded else _adopt(engine, broker, now)
    for pause in (*_pauses(broker), None):
        differences, news = _compare(engine, broker, now)
        entered += news
        if not differences or pause is None:
            break
        wait(pause)
    if differences and halt_in_force(engine, broker.account_id) is None:
        halt(engine, broker.account_id, WHO, f"the books differ: {'; '.join(differences)}", now)
    return Reconciliation(broker.account_id, tuple(differences), tuple(entered))


def accept(engine: Engine, broker: Broker, who: str, reason: str, now: datetime) -> Reconciliation:
    """Takes the broker's positions and cash for the truth, as a person decided who has looked; a halt stays.

    What was unequal is entered with who and why. Raises `InvalidInput` without a reason, and while orders of ours are
    not known to have ended.
    """
    if not reason.strip():
        raise InvalidInput("taking the broker's books for the truth needs a reason; say what you found")
    broker = _named(engine, broker, None)
    import_fills(engine, broker, now)
    held, cash = broker.positions(), broker.cash()
    with transaction(engine) as connection:
        ledger.lock_account(connection, broker.account_id)
        _refuse_while_at_work(connection, broker.account_id)
        entered = _enter_truth(connection, broker.account_id, held, cash, f"{ACCEPTED} by {who}: {reason.strip()}", now)
    return Reconciliation(broker.account_id, (), tuple(entered))


def last_fresh_start(connection: Connection, account: str) -> datetime | None:
    """When the broker's books were last taken as they are: at the opening, or by a person since."""
    table = ledger.cash_movements
    wanted = select(func.max(table.c.recorded_at)).where(
        table.c.account == account,
        or_(table.c.reference.startswith(OPENING), table.c.reference.startswith(ACCEPTED)),
    )
    found: datetime | None = connection.execute(wanted).scalar_one_or_none()
    return found


def _named(engine: Engine, broker: Broker, tickers: Tickers | None) -> Broker:
    if tickers is None:
        with engine.connect() as connection:
            tickers = known_tickers(connection, broker.account_id)
    return by_security(broker, tickers)


def _pauses(broker: Broker) -> Sequence[float]:
    """Where books are kept here, another process may fill between two looks, and no more than that."""
    return PAUSES[:1] if broker.capabilities.embedded or broker.capabilities.manual else PAUSES


def _import(engine: Engine, broker: Broker, now: datetime) -> tuple[int, list[Fill]]:
    """Enters new fills of ours; says how many, and which fills are of orders that others sent."""
    with engine.connect() as connection:
        last = ledger.last_fill(connection, broker.account_id)
    reported = broker.fills_since(last)
    if not reported:
        return 0, []
    with transaction(engine) as connection:
        ledger.lock_account(connection, broker.account_id)
        own = ledger.own_intents(connection, broker.account_id, [fill.client_order_id for fill in reported])
        foreign = [fill for fill in reported if fill.client_order_id not in own]
        return ledger.record_fills(connection, broker.account_id, reported, now), foreign


def _adopt(engine: Engine, broker: Broker, now: datetime) -> list[str]:
    """The first time that an account is seen: what it holds is its opening. Nothing after that."""
    with engine.connect() as connection:
        if last_fresh_start(connection, broker.account_id) is not None:
            return []
    held, cash = broker.positions(), broker.cash()
    with transaction(engine) as connection:
        ledger.lock_account(connection, broker.account_id)
        if last_fresh_start(connection, broker.account_id) is not None:
            return []
        return _enter_truth(connection, broker.account_id, held, cash, OPENING, now)


def _enter_truth(
    connection: Connection, account: str, held: Mapping[str, Decimal], cash: Decimal, why: str, now: datetime
) -> list[str]:
    """Makes the ledger's books those of the broker; the caller holds the account."""
    book, booked = ledger.held_quantities(connection, account), _booked(connection, account)
    entered = []
    kind = _unused_kind(connection, account, why.split(" ")[0], now.date())
    for symbol in sorted({*held, *book, *booked}):
        there = held.get(symbol, ZERO)
        change, moved = there - booked.get(symbol, ZERO), there - book.get(symbol, ZERO)
        if change:
            _enter_shares(connection, account, now.date(), symbol, kind, change, why, now)
        if moved:
            ledger.move_positions(connection, ledger.positions, account, [(symbol, moved)])
        if change or moved:
            entered.append(f"{symbol} is {there} shares ({why})")
    ledger.move_cash(connection, account, f"{kind} {now.isoformat()}", cash - _moved(connection, account), now)
    connection.execute(update(ledger.accounts).where(ledger.accounts.c.id == account).values(cash=cash))
    entered.append(f"cash is {cash} ({why})")
    return entered


def _unused_kind(connection: Connection, account: str, name: str, session: date) -> str:
    table = ledger.corporate_actions
    here = (table.c.account == account) & (table.c.session == session) & table.c.kind.startswith(name)
    count = len(set(connection.execute(select(table.c.kind).where(here)).scalars()))
    return name if not count else f"{name} {count + 1}"


def _refuse_while_at_work(connection: Connection, account: str) -> None:
    table, told = ledger.order_intents, ledger.broker_orders
    wanted = (
        select(func.count())
        .select_from(table.outerjoin(told, table.c.id == told.c.intent))
        .where(table.c.account == account, or_(told.c.status.is_(None), told.c.status.in_(("working", "unknown"))))
    )
    waiting = connection.execute(wanted).scalar_one()
    if waiting:
        raise InvalidInput(
            f"{waiting} orders of account {account!r} are not known to have ended, and may still change its books; "
            "execute or halt first"
        )


# -- comparing --------------------------------------------------------------------------------------------------------


def _compare(engine: Engine, broker: Broker, now: datetime) -> tuple[list[str], list[str]]:
    """The differences that remain after everything was entered that explains itself; and what was entered."""
    _, foreign = _import(engine, broker, now)
    entered: list[str] = []
    movements = _movements(engine, broker, now)
    held, cash = broker.positions(), broker.cash()
    exact = broker.capabilities.embedded
    equity = ZERO if exact else broker.account().equity or abs(cash)
    with transaction(engine) as connection:
        ledger.lock_account(connection, broker.account_id)
        if not exact:
            entered += _enter_movements(connection, broker.account_id, movements, held, now)
        differences = list(_share_differences(connection, broker, held))
        differences += _foreign_differences(connection, broker.account_id, foreign)
        if not exact and not differences:
            entered += _enter_unexplained_cash(connection, broker.account_id, cash, equity, now)
        differences += _cash_differences(connection, broker, cash)
    return differences, entered


def _share_differences(connection: Connection, broker: Broker, held: Mapping[str, Decimal]) -> Iterator[str]:
    book = ledger.held_quantities(connection, broker.account_id)
    yield from _unequal("fills plus corporate actions", _booked(connection, broker.account_id), book)
    yield from _unequal(f"broker {broker.name}", held, book)


def _cash_differences(connection: Connection, broker: Broker, there: Decimal) -> Iterator[str]:
    cash = read_account(connection, broker.account_id).cash
    for source, amount in (
        ("movements", _moved(connection, broker.account_id)),
        (f"broker {broker.name}", there),
    ):
        if amount != cash:
            yield f"cash is {cash} in the ledger and {amount} by {source}"


def _foreign_differences(connection: Connection, account: str, foreign: Sequence[Fill]) -> Iterator[str]:
    """What others traded in the account since its books were last taken as they are."""
    since = last_fresh_start(connection, account)
    for fill in foreign:
        if since is None or fill.filled_at > since:
            yield f"others traded {fill.quantity} shares of {fill.symbol} at {fill.price} (fill {fill.fill_id})"


# -- what explains itself ---------------------------------------------------------------------------------------------


def _movements(engine: Engine, broker: Broker, now: datetime) -> list[Movement]:
    """What the broker says moved the account without a trade, since its books were last taken as they are."""
    if not broker.capabilities.reports_movements:
        return []
    with engine.connect() as connection:
        since = last_fresh_start(connection, broker.account_id) or now
    asked = max(since, now - _LOOKS_BACK)
    return [movement for movement in broker.movements_since(asked) if movement.at > since]


def _enter_movements(
    connection: Connection, account: str, movements: Sequence[Movement], held: Mapping[str, Decimal], now: datetime
) -> list[str]:
    entered = []
    table = ledger.cash_movements
    for movement in movements:
        reference = f"movement {movement.movement_id}"[:128]
        here = (table.c.account == account) & (table.c.reference == reference)
        if movement.cash and connection.execute(select(table.c.amount).where(here)).one_or_none() is None:
            ledger.move_cash(connection, account, reference, movement.cash, now)
            entered.append(f"{movement.kind} of {movement.cash} {movement.symbol}".rstrip())
    book = ledger.held_quantities(connection, account)
    for symbol in sorted({movement.symbol for movement in movements if movement.quantity}):
        change = held.get(symbol, ZERO) - book.get(symbol, ZERO)
        said = [movement for movement in movements if movement.symbol == symbol and movement.quantity]
        fresh = [each for each in said if not _is_entered(connection, account, each)]
        if change and fresh and _explains(fresh, change, held.get(symbol, ZERO)):
            newest = max(fresh, key=lambda each: each.at)
            what = f"{newest.kind} {newest.movement_id} {newest.detail}".rstrip()
            _enter_shares(connection, account, newest.session, symbol, newest.kind[:16], change, what, now)
            ledger.move_positions(connection, ledger.positions, account, [(symbol, change)])
            entered.append(f"{newest.kind}: {change} shares of {symbol}")
    return entered


def _explains(movements: Sequence[Movement], change: Decimal, there: Decimal) -> bool:
    """Whether the broker's words fit its books; they say the change of shares, or the number after it."""
    quantities = [movement.quantity for movement in movements]
    return change in (*quantities, sum(quantities, ZERO)) or abs(there) in map(abs, quantities)


def _is_entered(connection: Connection, account: str, movement: Movement) -> bool:
    table = ledger.corporate_actions
    here = (
        (table.c.account == account)
        & (table.c.session == movement.session)
        & (table.c.symbol == movement.symbol)
        & (table.c.kind == movement.kind[:16])
    )
    return connection.execute(select(table.c.kind).where(here)).one_or_none() is not None


def _enter_unexplained_cash(
    connection: Connection, account: str, there: Decimal, equity: Decimal, now: datetime
) -> list[str]:
    """Enters a small change of cash that nothing explains, as far as it is small together with those of a day."""
    change = there - read_account(connection, account).cash
    if not change:
        return []
    table = ledger.cash_movements
    recent = select(table.c.amount).where(
        table.c.account == account, table.c.reference.startswith(UNEXPLAINED), table.c.recorded_at > now - _DAY
    )
    of_today = sum((abs(amount) for amount in connection.execute(recent).scalars()), ZERO)
    if abs(change) + of_today > max(Decimal(1), abs(equity) * UNEXPLAINED_CASH):
        return []
    ledger.move_cash(connection, account, f"{UNEXPLAINED} {now.isoformat()} {there}", change, now)
    return [f"{change} of cash that the broker does not explain"]


# -- the ledger's own books -------------------------------------------------------------------------------------------


def _enter_shares(
    connection: Connection,
    account: str,
    session: date,
    symbol: str,
    kind: str,
    change: Decimal,
    detail: str,
    now: datetime,
) -> None:
    connection.execute(
        insert(ledger.corporate_actions).values(
            account=account,
            session=session,
            symbol=symbol,
            kind=kind,
            quantity_change=change,
            cash=ZERO,
            detail=detail,
            recorded_at=now,
        )
    )


def _booked(connection: Connection, account: str) -> dict[str, Decimal]:
    booked: dict[str, Decimal] = {}
    _add_up(booked, connection, ledger.fills, "quantity", account)
    _add_up(booked, connection, ledger.corporate_actions, "quantity_change", account)
    return booked


def _moved(connection: Connection, account: str) -> Decimal:
    movements = ledger.cash_movements
    amounts = connection.execute(select(movements.c.amount).where(movements.c.account == account)).scalars()
    return sum(amounts, ZERO)


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
