"""The outbox: notices to be sent, one row a notice and target, written once however often the event is seen.

Events are read from the ledger itself, so that none is lost between something happening and its notice: a proposal, a
decision, the end of an execution, a halt. Rankings come from whoever makes them.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.dialects import postgresql, sqlite

from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.canonical import digest
from stockpicker_dagster.trading.proposal import ProposalDocument, from_bytes

LOOKS_BACK = timedelta(days=2)
"""How old an event may be to be told still: after a longer outage, people look at the console."""


@dataclass(frozen=True)
class Notice:
    """Something to be told. `key` names the event: one notice of it goes to each target. `happened_at` in UTC.

    After `expires_at` it is of no use any more and not sent (None: always of use).
    """

    key: str
    kind: str
    subject: str
    body: str
    happened_at: datetime
    proposal: str | None = None
    expires_at: datetime | None = None


def gather(engine: Engine, now: datetime) -> int:
    """Writes notices of what has happened lately and was not written yet; says how many."""
    with engine.connect() as connection:
        found = [notice for read in _EVENTS for notice in read(connection, now - LOOKS_BACK)]
    return sum(put(engine, notice, now) for notice in found)


def put(engine: Engine, notice: Notice, now: datetime) -> int:
    """Writes one notice for every target that wants its kind and was there when it happened; says for how many."""
    table = ledger.outbox
    if notice.expires_at is not None and notice.expires_at <= now:
        return 0
    with transaction(engine) as connection:
        insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        written = 0
        for target in _wanting(connection, notice):
            row = insert(table).values(
                key=notice.key,
                target=target,
                kind=notice.kind,
                proposal=notice.proposal,
                subject=notice.subject,
                body=notice.body,
                status="waiting",
                attempts=0,
                last_error="",
                created_at=now,
                due_at=now,
                expires_at=notice.expires_at,
            )
            written += connection.execute(row.on_conflict_do_nothing(index_elements=["key", "target"])).rowcount
    return written


def ranking_notice(
    strategy: str, session: str, best: list[str], worst: list[str], why_no_proposal: str, now: datetime
) -> Notice:
    """What a day without a rebalance says: the ranking, from most undervalued to most overvalued."""
    body = (
        f"{strategy} after {session}: {why_no_proposal}.\n\nMost undervalued: {', '.join(best) or 'none'}\n"
        f"Most overvalued: {', '.join(worst) or 'none'}\n"
    )
    key = f"ranking:{digest(f'{strategy} {session}'.encode())[:40]}"
    return Notice(key, "ranking", f"StockPicker: ranking of {strategy}, {session}", body, now)


def _wanting(connection: Connection, notice: Notice) -> list[str]:
    table = ledger.notice_targets
    rows = connection.execute(
        select(table.c.name, table.c.kinds).where(
            table.c.disabled_at.is_(None), table.c.created_at <= notice.happened_at
        )
    )
    return [row.name for row in rows if row.kinds is None or notice.kind in json.loads(row.kinds)]


def _proposals(connection: Connection, since: datetime) -> Iterator[Notice]:
    table = ledger.proposals
    for row in connection.execute(select(table).where(table.c.created_at >= since)):
        document = from_bytes(row.document)
        yield Notice(
            f"proposal:{row.id}",
            "proposal",
            f"StockPicker: {row.strategy} proposes {len(document.orders)} orders on {row.account}",
            _proposal_text(row.id, document),
            row.created_at,
            row.id,
            row.expires_at,
        )


def _proposal_text(identity: str, document: ProposalDocument) -> str:
    sides = {side: sum(order.side == side for order in document.orders) for side in ("sell", "cover", "buy", "short")}
    counted = ", ".join(f"{number} to {side}" for side, number in sides.items() if number)
    value = sum((abs(order.quantity * order.reference_price) for order in document.orders), ledger.ZERO)
    lines = [
        f"Proposal {identity} of {document.strategy} for account {document.account} ({document.mode}, "
        f"{document.broker}) waits for a decision.",
        "",
        f"Session: {document.session}, to trade on {document.trade_session}",
        f"Orders: {counted}, worth {value:,.0f} at reference prices; equity {document.equity:,.0f}",
        *([document.less_opened] if document.over_volume else []),
        f"Expires: {document.decidable_until:%Y-%m-%d %H:%M} UTC",
        "",
        "Look at it and decide on the console, or with `stockpicker approve` and `stockpicker deny`. Nobody is ever "
        "asked to decide by answering a message.",
    ]
    return "\n".join(lines)


def _decisions(connection: Connection, since: datetime) -> Iterator[Notice]:
    outcomes, proposals = ledger.outcomes, ledger.proposals
    wanted = (
        select(outcomes, proposals.c.strategy, proposals.c.account)
        .join(proposals, outcomes.c.proposal == proposals.c.id)
        .where(outcomes.c.recorded_at >= since, outcomes.c.outcome != "superseded")
    )
    for row in connection.execute(wanted):
        subject = f"StockPicker: proposal {row.proposal} of {row.strategy} is {row.outcome}"
        body = f"Proposal {row.proposal} on account {row.account} is {row.outcome}. {row.detail}".strip()
        yield Notice(f"decision:{row.proposal}", "decision", subject, body, row.recorded_at, row.proposal)


def _executions(connection: Connection, since: datetime) -> Iterator[Notice]:
    table, proposals, intents, told = ledger.executions, ledger.proposals, ledger.order_intents, ledger.broker_orders
    wanted = (
        select(table, proposals.c.strategy, proposals.c.account)
        .join(proposals, table.c.proposal == proposals.c.id)
        .where(table.c.ended_at >= since)
    )
    for row in connection.execute(wanted):
        counts = connection.execute(
            select(told.c.status, func.count())
            .join(intents, told.c.intent == intents.c.id)
            .where(intents.c.proposal == row.proposal)
            .group_by(told.c.status)
        ).all()
        said = ", ".join(f"{number} {status}" for status, number in sorted(map(tuple, counts))) or "none was sent"
        subject = f"StockPicker: execution of {row.proposal} on {row.account} {row.status}"
        body = (
            f"Execution of proposal {row.proposal} ({row.strategy}) {row.status}. Orders: {said}. {row.detail}".strip()
        )
        key = f"execution:{row.proposal}:{row.status}"
        yield Notice(key, "execution", subject, body, row.ended_at, row.proposal)


def _halts(connection: Connection, since: datetime) -> Iterator[Notice]:
    table = ledger.halts
    for row in connection.execute(select(table).where(table.c.halted_at >= since)):
        where = f"account {row.account}" if row.account else "all accounts"
        subject, body = f"StockPicker: {where} halted", f"{where.capitalize()} halted by {row.who}: {row.reason}"
        yield Notice(f"halt:{row.id}", "halt", subject, body, row.halted_at)
    for row in connection.execute(select(table).where(table.c.resumed_at >= since)):
        where = f"account {row.account}" if row.account else "all accounts"
        subject, body = f"StockPicker: {where} resumed", f"{where.capitalize()} resumed by {row.resumed_by}."
        yield Notice(f"resumed:{row.id}", "halt", subject, body, row.resumed_at)


_EVENTS = (_proposals, _decisions, _executions, _halts)
