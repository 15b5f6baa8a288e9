"""Who sends for an account: one process at a time, under a number that rises with every change of hands.

The number fences: every write of an execution checks in its own transaction that its number is still the newest, so
that a process that was thought dead and comes back can commit nothing more. A lock is taken over from a process that
has ended, or that has not renewed it for half a minute. Its times are the computer's own, whatever clock a market has.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, bindparam, insert, select, update

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger

LEASE = timedelta(seconds=30)
_FREE = ""

_TABLE = ledger.execution_locks
_NEWEST = select(_TABLE.c.fencing).where(_TABLE.c.account == bindparam("of"))
_RENEW = update(_TABLE).where(_TABLE.c.account == bindparam("of"))


class LockHeld(StockPickerError):
    """Another process sends for this account now."""


class Fenced(StockPickerError):
    """Another process has taken over; this one must stop."""


@dataclass(frozen=True)
class Lock:
    """The right to send for `account`, as long as `fencing` is the newest number."""

    account: str
    fencing: int
    owner: str


def take(engine: Engine, account: str) -> Lock:
    """Takes the account's lock; raises `LockHeld`, naming the holder."""
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    now = _now()
    with transaction(engine) as connection:
        ledger.lock_account(connection, account)
        held = connection.execute(select(_TABLE).where(_TABLE.c.account == account)).one_or_none()
        if held is None:
            connection.execute(
                insert(_TABLE).values(account=account, fencing=1, owner=owner, taken_at=now, renewed_at=now)
            )
            return Lock(account, 1, owner)
        if held.owner != _FREE and not _ended(held.owner) and now - held.renewed_at < LEASE:
            raise LockHeld(
                f"account {account!r} is being traded by {held.owner} since {held.taken_at:%H:%M:%S} UTC; stop that "
                f"process first, or wait {LEASE.total_seconds():.0f} s after it has died on another machine"
            )
        connection.execute(
            update(_TABLE)
            .where(_TABLE.c.account == account)
            .values(fencing=held.fencing + 1, owner=owner, taken_at=now, renewed_at=now)
        )
        return Lock(account, held.fencing + 1, owner)


def check(connection: Connection, lock: Lock) -> None:
    """Makes sure, within the writing transaction, that the lock is still ours; raises `Fenced`.

    The caller holds the account's row, so that nobody takes the lock over before it commits.
    """
    newest = connection.execute(_NEWEST, {"of": lock.account}).scalar_one_or_none()
    if newest != lock.fencing:
        raise Fenced(
            f"account {lock.account!r} was taken over under number {newest}, this process has {lock.fencing}; it stops"
        )


def check_and_renew(connection: Connection, lock: Lock) -> None:
    """As `check`, and says that the holder is alive."""
    check(connection, lock)
    connection.execute(_RENEW, {"of": lock.account, "renewed_at": _now()})


def renew(engine: Engine, lock: Lock) -> None:
    """Says that the holder is alive; raises `Fenced`."""
    with transaction(engine) as connection:
        ledger.lock_account(connection, lock.account)
        check_and_renew(connection, lock)


def release(engine: Engine, lock: Lock) -> None:
    """Gives the lock back, if it is still ours; the number stays, so that it never falls."""
    with transaction(engine) as connection:
        connection.execute(
            update(_TABLE)
            .where(_TABLE.c.account == lock.account, _TABLE.c.fencing == lock.fencing)
            .values(owner=_FREE, renewed_at=_now())
        )


def _ended(owner: str) -> bool:
    """Whether the process is known to have ended; of other machines nothing is known."""
    host, process, _ = owner.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _now() -> datetime:
    return datetime.now(UTC)
