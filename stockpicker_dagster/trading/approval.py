"""Deciding on a proposal: who may, until when, and the one outcome that follows.

Expiry is a denial, a denial wins until execution has claimed the proposal, and nobody decides twice. Uniqueness
constraints in the ledger and the account's lock make that hold for any number of people at once. Until people with
logins exist, decisions are for paper accounts only, by the operating-system user (`os:<user>`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from sqlalchemy import Connection, Engine, func, insert, select

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import read_account
from stockpicker_dagster.trading.proposal import StoredProposal, denier_of, read_proposal, state_of

Decision = Literal["approve", "deny"]


class DecisionRefused(StockPickerError):
    """The proposal cannot be decided by this person, or not any more."""


class Expired(InvalidInput):
    """The proposal's time is over; that counts as a denial."""


@dataclass(frozen=True)
class Decided:
    """What a decision led to: `outcome` is None while further approvals are needed."""

    proposal: str
    outcome: Literal["approved", "denied"] | None
    approvals: int
    approvals_needed: int


@dataclass(frozen=True)
class Outcome:
    """The recorded end of deciding; `sequence` rises with every outcome, in the order in which they were committed."""

    sequence: int
    proposal: str
    digest: str
    account: str
    strategy: str
    session: date
    outcome: Literal["approved", "denied", "expired", "superseded"]
    detail: str
    recorded_at: datetime


def decide(engine: Engine, reference: str, person: str, decision: Decision, reason: str, now: datetime) -> Decided:
    """Records one person's decision on a proposal and, if it settles the matter, the outcome.

    `reference` is the id or a unique prefix of at least six digits. Raises `UnknownProposal`, `Expired` (which is then
    the recorded outcome), or `DecisionRefused`; no decision is recorded then.
    """
    _check_request(person, decision, reason)
    with transaction(engine) as connection:
        found = read_proposal(connection, reference)
        ledger.lock_account(connection, found.document.account)
        # Read again under the lock: another decider may have been faster.
        state = state_of(connection, found.id)
        if state == "open" and now >= found.document.expires_at:
            _expire(connection, found, now)
            decided = None
        else:
            _refuse_unless_allowed(connection, found, state, person, decision)
            decided = _record(connection, found, state, person, decision, reason.strip(), now)
    if decided is None:
        raise Expired(
            f"proposal {found.id} expired at {found.document.expires_at:%Y-%m-%d %H:%M:%S} UTC, which counts as "
            f"denied, and it is {now:%Y-%m-%d %H:%M:%S} UTC now; run the strategy again for a new one"
        )
    return decided


def expire_due(engine: Engine, now: datetime) -> list[str]:
    """Records every undecided proposal whose time is over as expired; returns their ids."""
    ended: list[str] = []
    with engine.connect() as connection:
        waiting = connection.execute(
            select(ledger.proposals.c.id, ledger.proposals.c.account)
            .join(ledger.open_proposals, ledger.open_proposals.c.proposal == ledger.proposals.c.id)
            .where(ledger.proposals.c.expires_at <= now)
            .order_by(ledger.proposals.c.created_at)
        ).all()
    for row in waiting:
        with transaction(engine) as connection:
            ledger.lock_account(connection, row.account)
            if state_of(connection, row.id) == "open":
                _expire(connection, read_proposal(connection, row.id), now)
                ended.append(row.id)
    return ended


def outcomes_after(engine: Engine, sequence: int) -> list[Outcome]:
    """The outcomes recorded after number `sequence` (0: all), in their order: what a sensor with a cursor asks for."""
    columns = (
        ledger.outcomes.c.sequence,
        ledger.outcomes.c.proposal,
        ledger.proposals.c.digest,
        ledger.proposals.c.account,
        ledger.proposals.c.strategy,
        ledger.proposals.c.session,
        ledger.outcomes.c.outcome,
        ledger.outcomes.c.detail,
        ledger.outcomes.c.recorded_at,
    )
    joined = ledger.outcomes.join(ledger.proposals, ledger.outcomes.c.proposal == ledger.proposals.c.id)
    wanted = select(*columns).select_from(joined).where(ledger.outcomes.c.sequence > sequence)
    with engine.connect() as connection:
        rows: Sequence[tuple[object, ...]] = [
            tuple(row) for row in connection.execute(wanted.order_by(ledger.outcomes.c.sequence))
        ]
    return [Outcome(*row) for row in rows]  # type: ignore[arg-type]


def _check_request(person: str, decision: str, reason: str) -> None:
    if decision not in ("approve", "deny"):
        raise InvalidInput(f"{decision!r} is no decision; allowed: approve, deny")
    if not person.startswith("os:") or len(person) == len("os:"):
        raise InvalidInput(f"{person!r} cannot decide; until people have logins, it is os: and the system's user name")
    if decision == "deny" and not reason.strip():
        raise InvalidInput("a denial needs a reason; say in a few words why")


def _refuse_unless_allowed(
    connection: Connection, found: StoredProposal, state: str, person: str, decision: Decision
) -> None:
    document = found.document
    if document.mode != "paper":
        raise DecisionRefused(
            f"proposal {found.id} is for the {document.mode} account {document.account!r}; only paper proposals can be "
            "decided until people have logins"
        )
    revocable = state == "approved" and decision == "deny"
    if state != "open" and not revocable:
        by = denier_of(connection, found.id)
        raise DecisionRefused(
            f"proposal {found.id} is already {state}{f' by {by}' if by else ''}, so it cannot be decided any more; "
            "to stop trading, halt the account"
        )
    if decision == "approve" and document.four_eyes and person == document.author:
        raise DecisionRefused(
            f"{person} last edited strategy {document.strategy!r} and account {document.account!r} asks for four eyes; "
            "somebody else has to approve"
        )
    earlier = connection.execute(
        select(ledger.decisions.c.decision).where(
            ledger.decisions.c.proposal == found.id, ledger.decisions.c.person == person
        )
    ).scalar_one_or_none()
    if earlier is not None:
        raise DecisionRefused(
            f"{person} has already decided on proposal {found.id} ({earlier}); nobody decides twice: to stop trading, "
            "halt the account"
        )


def _record(
    connection: Connection,
    found: StoredProposal,
    state: str,
    person: str,
    decision: Decision,
    reason: str,
    now: datetime,
) -> Decided:
    connection.execute(
        insert(ledger.decisions).values(
            proposal=found.id, person=person, decision=decision, reason=reason, decided_at=now
        )
    )
    needed = approvals_needed(connection, found)
    given = approvals_given(connection, found.id)
    if decision == "deny":
        if state == "approved":
            # The outcome stays what it was; the denial is what the claim finds, and the account is free again.
            ledger.release_account(connection, found.id)
        else:
            ledger.record_outcome(connection, found.id, "denied", f"{person}: {reason}", now)
        return Decided(found.id, "denied", given, needed)
    if given < needed:
        return Decided(found.id, None, given, needed)
    ledger.record_outcome(connection, found.id, "approved", f"{person}: {reason}" if reason else person, now)
    return Decided(found.id, "approved", given, needed)


def approvals_needed(connection: Connection, found: StoredProposal) -> int:
    """How many people have to approve: what the document or the account asks for now, whichever is more."""
    return max(found.document.approvals_needed, read_account(connection, found.document.account).approvals_needed)


def approvals_given(connection: Connection, proposal: str) -> int:
    """How many people have approved so far."""
    return connection.execute(
        select(func.count())
        .select_from(ledger.decisions)
        .where(ledger.decisions.c.proposal == proposal, ledger.decisions.c.decision == "approve")
    ).scalar_one()


def _expire(connection: Connection, found: StoredProposal, now: datetime) -> None:
    moment = f"expired at {found.document.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    ledger.record_outcome(connection, found.id, "expired", moment, now)
