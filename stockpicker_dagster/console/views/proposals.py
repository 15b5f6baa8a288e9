"""Proposals as a person decides on them: orders against holdings, exposures before and after, costs, limits, quorum.

Everything is derived from the stored bytes of the proposal, which are what would be executed, and from the ledger. The
limits are checked here once more, so that a person sees how close the basket comes to each.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import Connection, Select, select

from stockpicker_dagster.console.views.desk import Desk
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import Account, halt_in_force, read_account
from stockpicker_dagster.trading.approval import approvals_needed, approvers
from stockpicker_dagster.trading.proposal import (
    ProposalDocument,
    ProposedOrder,
    StoredProposal,
    read_proposal,
    states_of,
)

ZERO = Decimal(0)
_BPS = Decimal(10_000)


@dataclass(frozen=True)
class OrderLine:
    """One order beside what is held: signed shares and their weights of equity before and after."""

    symbol: str
    side: str
    phase: str
    quantity: Decimal
    reference_price: Decimal
    notional: Decimal
    held: Decimal
    after: Decimal
    weight_before: Decimal
    weight_after: Decimal
    order_type: str
    time_in_force: str
    collar_low: Decimal | None
    collar_high: Decimal | None


@dataclass(frozen=True)
class Exposure:
    """A book as multiples of equity; `names` counts its positions."""

    gross: Decimal
    net: Decimal
    long: Decimal
    short: Decimal
    names: int


@dataclass(frozen=True)
class LimitCheck:
    """One limit with the figure that this basket reaches."""

    name: str
    figure: Decimal
    limit: Decimal
    meaning: str

    @property
    def kept(self) -> bool:
        """Whether the figure is within the limit."""
        return self.figure <= self.limit


@dataclass(frozen=True)
class TargetChange:
    """How a target weight differs from that of the account's proposal before this one."""

    symbol: str
    before: Decimal
    now: Decimal


@dataclass(frozen=True)
class DecisionLine:
    """What one person decided."""

    person: str
    decision: str
    reason: str
    decided_at: datetime


@dataclass(frozen=True)
class ProposalView:
    """One proposal with everything a decision rests on."""

    stored: StoredProposal
    account: Account
    orders: Sequence[OrderLine]
    before: Exposure
    after: Exposure
    turnover: Decimal
    commission: Decimal
    half_spread: Decimal
    limits: Sequence[LimitCheck]
    changes: Sequence[TargetChange]
    compared_with: date | None
    """The session of the proposal that `changes` are against; None where this is the account's first."""
    decisions: Sequence[DecisionLine]
    approvals: int
    approvals_needed: int
    halted: str | None
    outcome: str

    @property
    def document(self) -> ProposalDocument:
        """What would be executed."""
        return self.stored.document

    @property
    def id(self) -> str:
        """The first digits of the digest."""
        return self.stored.id

    @property
    def state(self) -> str:
        """Where the proposal stands."""
        return self.stored.state

    @property
    def on_its_way(self) -> bool:
        """Whether it is accepted, and what becomes of it is still to be seen."""
        return self.state in ("approved", "executing")


@dataclass(frozen=True)
class ProposalLine:
    """A proposal in a list."""

    id: str
    account: str
    strategy: str
    session: date
    created_at: datetime
    expires_at: datetime
    state: str
    orders: int


def proposals(desk: Desk, strategy: str | None = None, most: int = 100) -> list[ProposalLine]:
    """The newest proposals, of one strategy or of all."""
    table = ledger.proposals
    wanted = select(table).order_by(table.c.created_at.desc()).limit(most)
    if strategy is not None:
        wanted = wanted.where(table.c.strategy == strategy)
    return _lines(desk, wanted)


def waiting(desk: Desk) -> list[ProposalLine]:
    """The proposals that hold their accounts: undecided, or approved and not ended."""
    table, held = ledger.proposals, ledger.open_proposals
    return _lines(desk, select(table).join(held, held.c.proposal == table.c.id).order_by(table.c.expires_at))


def proposal(desk: Desk, reference: str) -> ProposalView:
    """One proposal, by its id or at least six digits of it; raises `UnknownProposal` or `DigestMismatch`."""
    engine = desk.database
    with engine.connect() as connection:
        stored = read_proposal(connection, reference)
        document = stored.document
        account = read_account(connection, document.account)
        earlier = _earlier_targets(connection, document)
        decided = [
            DecisionLine(row.person, row.decision, row.reason, row.decided_at)
            for row in connection.execute(
                select(ledger.decisions)
                .where(ledger.decisions.c.proposal == stored.id)
                .order_by(ledger.decisions.c.decided_at)
            )
        ]
        outcome = connection.execute(
            select(ledger.outcomes.c.detail).where(ledger.outcomes.c.proposal == stored.id)
        ).scalar_one_or_none()
        given, needed = len(approvers(connection, stored)), approvals_needed(connection, stored)
    after = _holdings_after(document)
    traded = sum((order.quantity * order.reference_price for order in document.orders), ZERO)
    return ProposalView(
        stored=stored,
        account=account,
        orders=[_order_line(document, order, after) for order in document.orders],
        before=_exposure(document.holdings, document),
        after=_exposure(after, document),
        turnover=traded / _equity(document),
        commission=traded * account.costs.commission_bps / _BPS,
        half_spread=traded * account.costs.spread_bps / 2 / _BPS,
        limits=_limits(document, after, traded),
        changes=_changes(earlier[1], document.targets) if earlier else [],
        compared_with=earlier[0] if earlier else None,
        decisions=decided,
        approvals=given,
        approvals_needed=needed,
        halted=halt_in_force(engine, account.id),
        outcome=outcome or "",
    )


def _lines(desk: Desk, wanted: Select[Any]) -> list[ProposalLine]:
    """Proposals in a list. Their documents are not verified here: whoever decides on one sees it by itself."""
    with desk.database.connect() as connection:
        rows = connection.execute(wanted).all()
        states = states_of(connection, [row.id for row in rows])
    return [
        ProposalLine(
            row.id,
            row.account,
            row.strategy,
            row.session,
            row.created_at,
            row.expires_at,
            states[row.id],
            desk.remembered.answer(("orders", row.id), row.digest, partial(_order_count, row.document)),
        )
        for row in rows
    ]


def _order_count(document: bytes) -> int:
    """How many orders a stored document has; 0 for one that was tampered with, whose own page says so."""
    try:
        return len(json.loads(document)["orders"])
    except (ValueError, KeyError, TypeError):
        return 0


def _earlier_targets(connection: Connection, document: ProposalDocument) -> tuple[date, Mapping[str, Decimal]] | None:
    table = ledger.proposals
    identity = connection.execute(
        select(table.c.id)
        .where(
            table.c.account == document.account,
            table.c.strategy == document.strategy,
            table.c.session < document.session,
        )
        .order_by(table.c.session.desc(), table.c.created_at.desc())
        .limit(1)
    ).scalar_one_or_none()
    if identity is None:
        return None
    found = read_proposal(connection, identity).document
    return found.session, found.targets


def _holdings_after(document: ProposalDocument) -> dict[str, Decimal]:
    held = dict(document.holdings)
    for order in document.orders:
        sign = 1 if order.side in ("buy", "cover") else -1
        held[order.symbol] = held.get(order.symbol, ZERO) + sign * order.quantity
    return {symbol: quantity for symbol, quantity in held.items() if quantity}


def _order_line(document: ProposalDocument, order: ProposedOrder, after: Mapping[str, Decimal]) -> OrderLine:
    symbol, quantity, price = order.symbol, order.quantity, order.reference_price
    held, then = document.holdings.get(symbol, ZERO), after.get(symbol, ZERO)
    return OrderLine(
        symbol=symbol,
        side=order.side,
        phase=order.phase,
        quantity=quantity,
        reference_price=price,
        notional=quantity * price,
        held=held,
        after=then,
        weight_before=held * price / _equity(document),
        weight_after=then * price / _equity(document),
        order_type=order.order_type,
        time_in_force=order.time_in_force,
        collar_low=order.collar_low,
        collar_high=order.collar_high,
    )


def _equity(document: ProposalDocument) -> Decimal:
    """What figures are in multiples of; a flattening may be of an account that is worth nothing any more."""
    return document.equity or Decimal(1)


def _exposure(held: Mapping[str, Decimal], document: ProposalDocument) -> Exposure:
    values = [quantity * document.prices[symbol] for symbol, quantity in held.items() if quantity]
    long = sum((value for value in values if value > 0), ZERO) / _equity(document)
    short = -sum((value for value in values if value < 0), ZERO) / _equity(document)
    return Exposure(long + short, long - short, long, short, len(values))


def _limits(document: ProposalDocument, after: Mapping[str, Decimal], traded: Decimal) -> list[LimitCheck]:
    limits, equity = document.limits, _equity(document)
    exposure = _exposure(after, document)
    largest = max((order.quantity * order.reference_price for order in document.orders), default=ZERO)
    weights = [abs(quantity * document.prices[symbol]) / equity for symbol, quantity in after.items()]
    age = Decimal((document.trade_session - document.session).days)
    return [
        LimitCheck("order notional", largest, limits.order_notional, "largest single order, in currency"),
        LimitCheck("position", max(weights, default=ZERO), limits.position, "largest weight of one name"),
        LimitCheck("gross", exposure.gross, limits.gross, "sum of absolute weights after"),
        LimitCheck("net", abs(exposure.net), limits.net, "longs less shorts after, absolute"),
        LimitCheck("turnover", traded / equity, limits.turnover, "value traded, over equity"),
        LimitCheck("orders", Decimal(len(document.orders)), limits.orders, "orders in the proposal"),
        LimitCheck("price age", age, limits.price_age_days, "calendar days from the prices to the session traded in"),
        LimitCheck("volume share", _share_of_volume(document), limits.volume_share, "largest opening over a mean day"),
    ]


def _share_of_volume(document: ProposalDocument) -> Decimal:
    """The largest opening over its name's mean daily volume; those without one are told elsewhere."""
    openings = [order for order in document.orders if order.phase == "openings" and document.volumes.get(order.symbol)]
    return max((order.quantity / document.volumes[order.symbol] for order in openings), default=ZERO)


def _changes(before: Mapping[str, Decimal], now: Mapping[str, Decimal]) -> list[TargetChange]:
    """Names that came, went or changed sides, and weights that moved; the largest moves first."""
    moved = [
        TargetChange(symbol, before.get(symbol, ZERO), now.get(symbol, ZERO))
        for symbol in {*before, *now}
        if before.get(symbol, ZERO) != now.get(symbol, ZERO)
    ]
    return sorted(moved, key=lambda change: (-abs(change.now - change.before), change.symbol))
