"""Deciding on a proposal: who may, until when, and the one outcome that follows.

Expiry is a denial, a denial wins until execution has claimed the proposal, and nobody decides twice. Uniqueness
constraints in the ledger and the account's lock make that hold for any number of people at once. Until people have been
added, decisions are for paper accounts only, by the operating-system user (`os:<user>`). In live mode a decision rests
on a secret that was just proved, and is signed here, so that the trader can verify it without believing the database.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, insert, select

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import read_account
from stockpicker_dagster.trading.clocks import latest_time
from stockpicker_dagster.trading.people import directory
from stockpicker_dagster.trading.people.sign_in import Proof
from stockpicker_dagster.trading.proposal import StoredProposal, denier_of, read_proposal, state_of
from stockpicker_dagster.trading.signatures import SignedDecision, Signer, TrustedKeys

Decision = Literal["approve", "deny"]

FRESH = timedelta(minutes=5)
"""How old the proof of a secret may be when a live decision rests on it."""


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


def decide(
    engine: Engine,
    reference: str,
    person: str,
    decision: Decision,
    reason: str,
    now: datetime,
    *,
    proof: Proof | None = None,
    signer: Signer | None = None,
    os_user: str | None = None,
) -> Decided:
    """Records one person's decision on a proposal and, if it settles the matter, the outcome.

    `reference` is the id or a unique prefix of at least six digits; `person` a name of the directory, or `os:<user>`
    while there is nobody in it. In live mode `proof` of the person's secret, at most five minutes old, and a `signer`
    are needed. `os_user` is the system's user at whose keyboard it is decided, for four eyes. Raises `UnknownProposal`,
    `Expired` (which is then the recorded outcome), `NotAllowed` or `DecisionRefused`; no decision is recorded then.
    """
    _check_request(decision, reason)
    with transaction(engine) as connection:
        found = read_proposal(connection, reference)
        ledger.lock_account(connection, found.document.account)
        # Read again under the lock: another decider may have been faster.
        state = state_of(connection, found.id)
        moment = latest_time(connection, found.document.mode, now)
        if state == "open" and moment >= found.document.decidable_until:
            _expire(connection, found, now)
            decided = None
        else:
            _refuse_unless_allowed(connection, found, state, person, decision)
            _refuse_own_work(connection, found, decision, (person, f"os:{person}", os_user))
            own = proof if proof is not None and proof.person == person else None
            _refuse_without_proof(connection, found, (person, decision), own, signer, now)
            given = _Given(person, decision, reason.strip(), proof.method if proof else _method(person), now)
            decided = _record(connection, found, state, given, signer)
    if decided is None:
        raise Expired(
            f"proposal {found.id} expired at {found.document.decidable_until:%Y-%m-%d %H:%M:%S} UTC, which counts as "
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


@dataclass(frozen=True)
class _Given:
    """A decision on its way into the ledger."""

    person: str
    decision: Decision
    reason: str
    method: str
    decided_at: datetime

    def signed(self, found: StoredProposal) -> SignedDecision:
        return SignedDecision(
            digest=found.digest,
            account=found.document.account,
            person=self.person,
            decision=self.decision,
            reason=self.reason,
            method=self.method,
            decided_at=self.decided_at,
        )


def _check_request(decision: str, reason: str) -> None:
    if decision not in ("approve", "deny"):
        raise InvalidInput(f"{decision!r} is no decision; allowed: approve, deny")
    if decision == "deny" and not reason.strip():
        raise InvalidInput("a denial needs a reason; say in a few words why")


def _method(person: str) -> str:
    return "os" if person.startswith("os:") else "session"


def _refuse_unless_allowed(
    connection: Connection, found: StoredProposal, state: str, person: str, decision: Decision
) -> None:
    _check_person(connection, found, person)
    revocable = state == "approved" and decision == "deny"
    if state != "open" and not revocable:
        by = denier_of(connection, found.id)
        raise DecisionRefused(
            f"proposal {found.id} is already {state}{f' by {by}' if by else ''}, so it cannot be decided any more; "
            "to stop trading, halt the account"
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


def _check_person(connection: Connection, found: StoredProposal, person: str) -> None:
    """Whether this person may decide at all; raises `NotAllowed`, `DecisionRefused` or `InvalidInput`."""
    if directory.people_exist(connection):
        if person.startswith("os:"):
            raise DecisionRefused(
                f"{person} cannot decide, because people have logins here; decide as one of them (`--as NAME`)"
            )
        directory.require(connection, person, "approver")
        return
    if not person.startswith("os:") or len(person) == len("os:"):
        raise InvalidInput(f"{person!r} cannot decide; until people have logins, it is os: and the system's user name")
    if found.document.mode != "paper":
        raise DecisionRefused(
            f"proposal {found.id} is for the {found.document.mode} account {found.document.account!r}; only paper "
            "proposals can be decided until people have logins"
        )


def _refuse_own_work(
    connection: Connection, found: StoredProposal, decision: Decision, names: Sequence[str | None]
) -> None:
    document = found.document
    if decision == "approve" and document.author in names and four_eyes(connection, found):
        raise DecisionRefused(
            f"{document.author} last edited strategy {document.strategy!r} and account {document.account!r} asks for "
            "four eyes; somebody else has to approve"
        )


def _refuse_without_proof(
    connection: Connection,
    found: StoredProposal,
    wanted: tuple[str, Decision],
    proof: Proof | None,
    signer: Signer | None,
    now: datetime,
) -> None:
    person, decision = wanted
    if found.document.mode == "paper":
        return
    if decision == "approve" and not read_account(connection, found.document.account).live_enabled:
        raise DecisionRefused(
            f"live trading is switched off for account {found.document.account!r}; an administrator switches it on"
        )
    if proof is None or not timedelta() <= now - proof.proved_at <= FRESH:
        minutes = int(FRESH.total_seconds() // 60)
        raise DecisionRefused(
            f"a live decision needs the password or a code of {person} that was given in the last {minutes} minutes"
        )
    if signer is None:
        raise DecisionRefused("a live decision has to be signed, and there is no signing key here")


def _record(connection: Connection, found: StoredProposal, state: str, given: _Given, signer: Signer | None) -> Decided:
    person, decision, reason, now = given.person, given.decision, given.reason, given.decided_at
    signed = signer is not None and found.document.mode != "paper"
    connection.execute(
        insert(ledger.decisions).values(
            proposal=found.id,
            person=person,
            decision=decision,
            reason=reason,
            decided_at=now,
            method=given.method,
            key=signer.key if signed and signer else None,
            signature=signer.sign(given.signed(found)) if signed and signer else None,
        )
    )
    needed = approvals_needed(connection, found)
    approvals = len(approvers(connection, found))
    if decision == "deny":
        if state == "approved":
            # The outcome stays what it was; the denial is what the claim finds, and the account is free again.
            ledger.release_account(connection, found.id)
        else:
            ledger.record_outcome(connection, found.id, "denied", f"{person}: {reason}", now)
        return Decided(found.id, "denied", approvals, needed)
    if approvals < needed:
        return Decided(found.id, None, approvals, needed)
    ledger.record_outcome(connection, found.id, "approved", f"{person}: {reason}" if reason else person, now)
    return Decided(found.id, "approved", approvals, needed)


def approvals_needed(connection: Connection, found: StoredProposal) -> int:
    """How many people have to approve: what the document or the account asks for now, whichever is more.

    A flattening, which only reduces, needs one.
    """
    if found.document.kind == "flatten":
        return 1
    return max(found.document.approvals_needed, read_account(connection, found.document.account).approvals_needed)


def four_eyes(connection: Connection, found: StoredProposal) -> bool:
    """Whether the author may not approve: as the document or the account asks for now. A flattening has no author."""
    if found.document.kind == "flatten":
        return False
    return found.document.four_eyes or read_account(connection, found.document.account).four_eyes


def approvers(connection: Connection, found: StoredProposal, trusted: TrustedKeys | None = None) -> list[str]:
    """Whose approvals count now: of people who still may approve, and did not write it where four eyes are asked for.

    With `trusted`, in live mode, an approval without a fitting signature of a trusted key raises `NotSigned`.
    """
    table = ledger.decisions
    rows = connection.execute(
        select(table).where(table.c.proposal == found.id, table.c.decision == "approve").order_by(table.c.decided_at)
    ).all()
    people = directory.people_exist(connection)
    live = found.document.mode != "paper"
    counted = []
    for row in rows:
        if people and not _still_may(connection, row.person):
            continue
        if four_eyes(connection, found) and found.document.author in (row.person, f"os:{row.person}"):
            continue
        if live and trusted is not None:
            verify_signature(found, row, trusted)
        counted.append(row.person)
    return counted


def verify_signature(found: StoredProposal, row: Row[Any], trusted: TrustedKeys) -> None:
    """Raises `NotSigned` unless a trusted key signed the decision in this row of the ledger, about this proposal."""
    given = _Given(row.person, row.decision, row.reason, row.method or "", row.decided_at)
    trusted.verify(given.signed(found), row.key, row.signature)


def _still_may(connection: Connection, name: str) -> bool:
    try:
        directory.require(connection, name, "approver")
    except (directory.NotAllowed, directory.UnknownPerson):
        return False
    return True


def _expire(connection: Connection, found: StoredProposal, now: datetime) -> None:
    moment = f"expired at {found.document.decidable_until:%Y-%m-%d %H:%M:%S} UTC"
    ledger.record_outcome(connection, found.id, "expired", moment, now)
