"""What the trader process of an account says of itself, for everybody who cannot look into that process.

The times are real ones, whatever clock a market has. A trader that says nothing any more is told from one that has
nothing to do by when it was last seen.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, insert, select, update

from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.locks import Lock, check

SILENT_AFTER = timedelta(minutes=1)
"""A trader that was not seen for so long counts as not running."""


@dataclass(frozen=True)
class TraderReport:
    """One trader process: what it does, what troubles it (empty: nothing), and when its books last agreed."""

    account: str
    owner: str
    started_at: datetime
    seen_at: datetime
    state: str
    problem: str
    reconciled_at: datetime | None

    def running(self, now: datetime) -> bool:
        """Whether it was seen lately."""
        return now - self.seen_at < SILENT_AFTER

    def sentence(self, now: datetime) -> str:
        """How it is, in a line."""
        seen = f"seen {self.seen_at:%Y-%m-%d %H:%M:%S} UTC"
        books = f"books agreed {self.reconciled_at:%Y-%m-%d %H:%M} UTC" if self.reconciled_at else "not reconciled yet"
        how = self.state if self.running(now) else f"not running, start it with `stockpicker trader {self.account}`"
        return "; ".join(part for part in (how, self.problem, books, f"{self.owner}, {seen}") if part)


def trader_of(engine: Engine, account: str) -> TraderReport | None:
    """What the account's trader last said; None if there never was one."""
    table = ledger.traders
    with engine.connect() as connection:
        row = connection.execute(select(table).where(table.c.account == account)).one_or_none()
    if row is None:
        return None
    return TraderReport(row.account, row.owner, row.started_at, row.seen_at, row.state, row.problem, row.reconciled_at)


def tell(
    engine: Engine,
    lock: Lock,
    started_at: datetime,
    now: datetime,
    state: str,
    problem: str,
    reconciled_at: datetime | None,
) -> None:
    """Keeps what the trader says; raises `Fenced` where another one has taken over."""
    table = ledger.traders
    said: dict[str, Any] = {
        "owner": lock.owner,
        "fencing": lock.fencing,
        "started_at": started_at,
        "seen_at": now,
        "state": state,
        "problem": problem,
        "reconciled_at": reconciled_at,
    }
    with transaction(engine) as connection:
        ledger.lock_account(connection, lock.account)
        check(connection, lock)
        known = connection.execute(select(table.c.account).where(table.c.account == lock.account)).one_or_none()
        if known is None:
            connection.execute(insert(table).values(account=lock.account, **said))
        else:
            connection.execute(update(table).where(table.c.account == lock.account).values(**said))
