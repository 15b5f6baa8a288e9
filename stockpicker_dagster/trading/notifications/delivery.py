"""Sending what waits in the outbox: claimed, sent, and tried again later where the target did not take it.

A process that dies while sending leaves its notice claimed for a few minutes; then it is sent once more. So a notice
can come twice after a crash, and is never lost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, Row, select, update

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.notifications.network import public_only
from stockpicker_dagster.trading.notifications.outbox import gather
from stockpicker_dagster.trading.notifications.targets import check_address, resolved

ATTEMPTS = 10
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(hours=1)
LEASE = timedelta(minutes=5)

Send = Callable[[str, str, str], str | None]
"""Sends subject and body to an address; says why not, None if it was taken."""


@dataclass(frozen=True)
class Drained:
    """What one pass over the outbox did."""

    gathered: int
    sent: int
    postponed: int
    given_up: int

    def __str__(self) -> str:
        return (
            f"{self.gathered} notices written, {self.sent} sent, {self.postponed} to be tried again, "
            f"{self.given_up} given up"
        )


def send(url: str, subject: str, body: str) -> str | None:
    """Sends by apprise, to public addresses only; says why not, without the address. Never raises."""
    try:
        sender = check_address(resolved(url))
    except InvalidInput as error:
        return str(error)
    with public_only() as refused:
        try:
            taken = sender.notify(body=body, title=subject, body_format="text", interpret_escapes=False)
        except Exception as error:
            return f"the service failed ({type(error).__name__})"
    if refused:
        return f"a connection to {', '.join(sorted(set(refused)))} was refused: not on the public internet"
    return None if taken else "the service did not take it"


def drain(engine: Engine, now: datetime, deliver: Send = send, at_most: int = 50) -> Drained:
    """One pass: writes notices of new events, then sends what is due, the oldest first."""
    gathered = gather(engine, now)
    counts = {"sent": 0, "waiting": 0, "failed": 0, "expired": 0}
    for identity in _due(engine, now, at_most):
        row = _claim(engine, identity, now)
        if row is not None:
            counts[_sent(engine, row, now, deliver)] += 1
    return Drained(gathered, counts["sent"], counts["waiting"], counts["failed"] + counts["expired"])


def _due(engine: Engine, now: datetime, at_most: int) -> list[int]:
    table = ledger.outbox
    due = table.c.status.in_(("waiting", "sending")) & (table.c.due_at <= now)
    with engine.connect() as connection:
        return list(connection.execute(select(table.c.id).where(due).order_by(table.c.id).limit(at_most)).scalars())


def _claim(engine: Engine, identity: int, now: datetime) -> Row[Any] | None:
    """Takes a notice for this process until the lease ends; None where another process has it."""
    table, named = ledger.outbox, ledger.notice_targets
    here = (table.c.id == identity) & table.c.status.in_(("waiting", "sending")) & (table.c.due_at <= now)
    with transaction(engine) as connection:
        claimed = connection.execute(
            update(table).where(here).values(status="sending", attempts=table.c.attempts + 1, due_at=now + LEASE)
        ).rowcount
        if not claimed:
            return None
        return connection.execute(
            select(table, named.c.url, named.c.disabled_at)
            .select_from(table.outerjoin(named, table.c.target == named.c.name))
            .where(table.c.id == identity)
        ).one()


def _sent(engine: Engine, row: Row[Any], now: datetime, deliver: Send) -> str:
    """Sends one notice and records what came of it: its new status."""
    if row.expires_at is not None and row.expires_at <= now:
        return _record(engine, row, "expired", "it was of no use any more", now)
    if row.url is None or row.disabled_at is not None:
        return _record(engine, row, "failed", "the target is not in use any more", now)
    why = deliver(row.url, row.subject, row.body)
    if why is None:
        return _record(engine, row, "sent", "", now)
    return _record(engine, row, "failed" if row.attempts >= ATTEMPTS else "waiting", why, now)


def _record(engine: Engine, row: Row[Any], status: str, why: str, now: datetime) -> str:
    table = ledger.outbox
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(row.attempts - 1, 10))
    values = {"status": status, "last_error": why[:300], "due_at": now + pause}
    if status == "sent":
        values["sent_at"] = now
    with transaction(engine) as connection:
        connection.execute(update(table).where(table.c.id == row.id, table.c.attempts == row.attempts).values(**values))
    return status
