"""A proposal: the immutable document that a person decides on and that execution reads, and its registration.

The document is canonical JSON; its SHA-256 names it, and the first twelve hexadecimal digits are its id. It is
complete: whoever has the bytes needs neither the lake nor Dagster to know what was proposed, to whom and until when.
Deciding is in `approval`, sending in `execution`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, Table, bindparam, delete, insert, select

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import Account, limits_from, policy_from
from stockpicker_dagster.trading.canonical import canonical_bytes, digest
from stockpicker_dagster.trading.rebalance import LATER, Plan, PlannedOrder, Policy
from stockpicker_dagster.trading.risk import Limits
from stockpicker_dagster.trading.slices import sliced

FORMAT = "stockpicker-proposal/1"
ID_LENGTH = 12

State = Literal["open", "approved", "denied", "expired", "superseded", "executing", "executed", "aborted", "lapsed"]
"""open: undecided. executing: claimed and not ended. aborted: claimed, then refused by a check before submission.
lapsed: approved, but not claimed before it expired."""

# Asked before every order, so built once.
_CLAIM = select(ledger.executions.c.status).where(ledger.executions.c.proposal == bindparam("proposal"))
_OUTCOME = select(ledger.outcomes.c.outcome).where(ledger.outcomes.c.proposal == bindparam("proposal"))
_DENIER = (
    select(ledger.decisions.c.person, ledger.decisions.c.reason)
    .where(ledger.decisions.c.proposal == bindparam("proposal"), ledger.decisions.c.decision == "deny")
    .order_by(ledger.decisions.c.decided_at)
    .limit(1)
)

_COLLAR_STEP = Decimal("0.0001")
_CENT = Decimal("0.01")
_MAKING = ("created_at", "expires_at", "decide_by", "run")
_NAMED = 12
_REFERENCE = re.compile(r"[0-9a-f]{6,64}")


class DigestMismatch(StockPickerError):
    """The stored bytes are not those that were decided on."""


class UnknownProposal(InvalidInput):
    """No proposal, or more than one, has this id."""


class ProposalRefused(StockPickerError):
    """The account cannot take a new proposal now."""


@dataclass(frozen=True)
class ProposedOrder(PlannedOrder):
    """A planned order with how it is to be sent.

    `order_type` is `market` or `limit`, which alone has a `limit_price`; `time_in_force` is `opg` (the opening
    auction), `cls` (the closing one) or `day`. The collar is the range of prices in currency within which the order may
    fill, None for no bound. `slice` says which of the openings go together, from 1.
    """

    order_type: str
    time_in_force: str
    collar_low: Decimal | None
    collar_high: Decimal | None
    limit_price: Decimal | None = field(default=None, metadata=LATER)
    slice: int = field(default=1, metadata=LATER)


@dataclass(frozen=True)
class ProposalDocument:
    """Everything that is proposed. Quantities are whole shares, signed in `holdings`; money is in currency.

    `session` is the trading day whose close the plan follows, `trade_session` the one whose open fills it; both prices
    and targets are those of `session`. It is void from `expires_at` on. `kind` is `rebalance` or `flatten`, which only
    reduces and passes a halt. Nobody decides from `decide_by` on, where it is given, else from `expires_at` on.
    `broker_account` is the broker's number of the account, and `run` the Dagster run that made the plan. `volumes` are
    mean daily volumes in shares; nothing is opened in a name without one. `over_volume` names what less is opened of
    than was planned, for its share of that. `tickers` are what the broker calls securities whose ticker is not their
    id.
    """

    account: str
    broker: str
    mode: str
    base_url: str
    approvals_needed: int
    four_eyes: bool
    strategy: str
    author: str
    policy: Policy
    limits: Limits
    session: date
    trade_session: date
    venue_name: str
    venue_simulated: bool
    cash: Decimal
    equity: Decimal
    holdings: Mapping[str, Decimal]
    targets: Mapping[str, Decimal]
    prices: Mapping[str, Decimal]
    orders: tuple[ProposedOrder, ...]
    without_price: tuple[str, ...]
    too_small: tuple[str, ...]
    model_id: str
    data_version: str
    code_version: str
    created_at: datetime
    expires_at: datetime
    kind: str = field(default="rebalance", metadata=LATER)
    broker_account: str | None = field(default=None, metadata=LATER)
    volumes: Mapping[str, Decimal] = field(default_factory=dict, metadata=LATER)
    run: str = field(default="", metadata=LATER)
    decide_by: datetime | None = field(default=None, metadata=LATER)
    tickers: Mapping[str, str] = field(default_factory=dict, metadata=LATER)
    over_volume: tuple[str, ...] = field(default=(), metadata=LATER)

    @property
    def decidable_until(self) -> datetime:
        """When deciding and claiming end."""
        return self.decide_by or self.expires_at

    @property
    def less_opened(self) -> str:
        """A sentence on `over_volume`, for people."""
        called = [self.tickers.get(symbol, symbol) for symbol in self.over_volume]
        more = f" and {len(called) - _NAMED} more" if len(called) > _NAMED else ""
        return (
            f"Less is opened than planned, for the limit `volume_share` of {self.limits.volume_share} of a mean day: "
            f"{', '.join(called[:_NAMED])}{more}"
        )

    def to_bytes(self) -> bytes:
        """The canonical bytes, which are what is stored, decided on and executed."""
        return canonical_bytes({"format": FORMAT, **_plain(self)})

    @property
    def digest(self) -> str:
        """The SHA-256 of the bytes."""
        return digest(self.to_bytes())

    @property
    def id(self) -> str:
        """The first twelve digits of the digest."""
        return self.digest[:ID_LENGTH]

    @property
    def content(self) -> str:
        """The digest of all but when and by which run it was made: the same plan made again has the same content."""
        body = _plain(self)
        return digest(canonical_bytes({key: body[key] for key in body if key not in _MAKING}))


@dataclass(frozen=True)
class StoredProposal:
    """A registered proposal, its bytes verified against its digest, and where it stands."""

    id: str
    digest: str
    document: ProposalDocument
    state: State


def build(
    account: Account,
    *,
    strategy: str,
    author: str,
    limits: Limits,
    session: date,
    trade_session: date,
    venue_name: str,
    venue_simulated: bool,
    cash: Decimal,
    equity: Decimal,
    holdings: Mapping[str, Decimal],
    targets: Mapping[str, Decimal],
    prices: Mapping[str, Decimal],
    plan: Plan,
    model_id: str,
    data_version: str,
    code_version: str,
    created_at: datetime,
    expires_at: datetime,
    kind: str = "rebalance",
    volumes: Mapping[str, Decimal] | None = None,
    run: str = "",
    auction_openings: bool = True,
    auction_reductions: bool = True,
    auction: str = "opg",
    decide_by: datetime | None = None,
    tickers: Mapping[str, str] | None = None,
) -> ProposalDocument:
    """The document that proposes `plan` for `account`; of `prices`, those of the names concerned are kept.

    `auction_openings` and `auction_reductions`: whether those go into an auction as market orders; reductions into
    `auction`, `opg` or `cls`. Openings that do not are limit orders within the policy's collar, in slices; reductions
    that do not are day orders, and so is what is no whole number of shares. A flattening has no collar.

    Raises `InvalidInput` where the proposal would be void already or trade in its own past.
    """
    if expires_at <= created_at:
        raise InvalidInput(f"the proposal would expire at {expires_at}, before it is made at {created_at}")
    if trade_session <= session:
        raise InvalidInput(f"a plan made after the close of {session} cannot trade on {trade_session}; trade later")
    concerned = {*targets, *holdings} & set(prices)
    return ProposalDocument(
        account=account.id,
        broker=account.broker,
        mode=account.mode,
        base_url=account.base_url,
        approvals_needed=account.approvals_needed,
        four_eyes=account.four_eyes,
        strategy=strategy,
        author=author,
        policy=account.policy,
        limits=limits,
        session=session,
        trade_session=trade_session,
        venue_name=venue_name,
        venue_simulated=venue_simulated,
        cash=cash,
        equity=equity,
        holdings=dict(holdings),
        targets={symbol: weight for symbol, weight in targets.items() if weight},
        prices={symbol: prices[symbol] for symbol in concerned},
        orders=_as_sent(
            plan,
            account.policy,
            limits.collar if kind == "rebalance" else None,
            equity,
            auction_openings,
            auction if auction_reductions else "day",
        ),
        without_price=plan.without_price,
        too_small=plan.too_small,
        model_id=model_id,
        data_version=data_version,
        code_version=code_version,
        created_at=created_at.astimezone(UTC),
        expires_at=expires_at.astimezone(UTC),
        kind=kind,
        broker_account=account.broker_account,
        volumes={symbol: volume for symbol, volume in (volumes or {}).items() if symbol in concerned},
        run=run,
        decide_by=None if decide_by is None else decide_by.astimezone(UTC),
        tickers={security: ticker for security, ticker in (tickers or {}).items() if security in concerned},
        over_volume=tuple(sorted(plan.over_volume)),
    )


def from_bytes(stored: bytes) -> ProposalDocument:
    """The document in `stored`; raises `DigestMismatch` unless the bytes are exactly what the document encodes to."""
    try:
        document = _parse(json.loads(stored))
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise DigestMismatch(f"the stored proposal is no document of {FORMAT}: {error}") from error
    if document.to_bytes() != stored:
        raise DigestMismatch("the stored proposal is not in canonical form; it was written by something else")
    return document


def register(engine: Engine, document: ProposalDocument) -> str:
    """Stores the document as the one open proposal of its account and returns its id.

    An undecided proposal of the account is superseded. The same plan registered again while it is open, with the same
    expiry, is the same proposal. Raises `ProposalRefused` while a decided one is not ended, where the session was
    executed already, or where the same plan was denied.
    """
    with transaction(engine) as connection:
        ledger.lock_account(connection, document.account)
        same = _same_plan(connection, document)
        if same is not None:
            return same
        if document.kind == "rebalance":
            _refuse_second_execution(connection, document)
        _free_account(connection, document)
        stored = document.to_bytes()
        identity = digest(stored)
        connection.execute(
            insert(ledger.proposals).values(
                id=identity[:ID_LENGTH],
                digest=identity,
                content=document.content,
                account=document.account,
                strategy=document.strategy,
                session=document.session,
                document=stored,
                created_at=document.created_at,
                expires_at=document.decidable_until,
            )
        )
        connection.execute(
            insert(ledger.open_proposals).values(account=document.account, proposal=identity[:ID_LENGTH])
        )
        return identity[:ID_LENGTH]


def load(engine: Engine, reference: str) -> StoredProposal:
    """The proposal whose digest starts with `reference` (six digits or more), its bytes verified.

    Raises `UnknownProposal`, listing the open ones, or `DigestMismatch`.
    """
    with engine.connect() as connection:
        return read_proposal(connection, reference)


def read_proposal(connection: Connection, reference: str) -> StoredProposal:
    """As `load`, within a transaction."""
    row = _find(connection, reference)
    if digest(row.document) != row.digest or row.id != row.digest[:ID_LENGTH]:
        raise DigestMismatch(
            f"proposal {row.id}: the stored bytes have digest {digest(row.document)}, not {row.digest}; "
            "the database was changed behind the ledger, so nothing is executed: propose again"
        )
    return StoredProposal(row.id, row.digest, from_bytes(row.document), state_of(connection, row.id))


def state_of(connection: Connection, proposal: str) -> State:
    """Where a proposal stands. An approval followed by another person's denial, before the claim, is a denial."""
    return states_of(connection, [proposal])[proposal]


def states_of(connection: Connection, proposals: Sequence[str]) -> dict[str, State]:
    """Where each of many proposals stands, as `state_of` says, asked for all of them at once."""
    ended = {"claimed": "executing", "finished": "executed", "aborted": "aborted", "lapsed": "lapsed"}

    def told(table: Table, column: str) -> dict[str, str]:
        wanted = select(table.c.proposal, table.c[column]).where(table.c.proposal.in_(proposals))
        return {row[0]: row[1] for row in connection.execute(wanted)}

    claims, outcomes = told(ledger.executions, "status"), told(ledger.outcomes, "outcome")
    decisions = ledger.decisions
    denied = set(
        connection.execute(
            select(decisions.c.proposal).where(decisions.c.proposal.in_(proposals), decisions.c.decision == "deny")
        ).scalars()
    )
    states: dict[str, State] = {}
    for each in proposals:
        if each in claims:
            states[each] = ended[claims[each]]  # type: ignore[assignment]
        elif outcomes.get(each) == "approved" and each in denied:
            states[each] = "denied"
        else:
            states[each] = outcomes.get(each, "open")  # type: ignore[assignment]
    return states


def denier_of(connection: Connection, proposal: str) -> str | None:
    """Who denied the proposal first, with the reason; None if nobody did."""
    found = connection.execute(_DENIER, {"proposal": proposal}).one_or_none()
    return None if found is None else f"{found.person}: {found.reason}"


def open_proposals(engine: Engine) -> list[StoredProposal]:
    """The proposals that hold their accounts: undecided, or approved and not ended; oldest first."""
    with engine.connect() as connection:
        return [read_proposal(connection, identity) for identity in _holding(connection)]


def _holding(connection: Connection) -> Sequence[str]:
    held = ledger.open_proposals.join(ledger.proposals, ledger.open_proposals.c.proposal == ledger.proposals.c.id)
    ordered = select(ledger.proposals.c.id).select_from(held).order_by(ledger.proposals.c.created_at)
    return connection.execute(ordered).scalars().all()


def _find(connection: Connection, reference: str) -> Row[Any]:
    wanted = reference.strip().lower()
    if not _REFERENCE.fullmatch(wanted):
        raise UnknownProposal(
            f"{reference!r} is no proposal id; give at least its first six hexadecimal digits. {_listing(connection)}"
        )
    rows = connection.execute(
        select(ledger.proposals).where(ledger.proposals.c.digest.startswith(wanted, autoescape=True)).limit(2)
    ).all()
    if not rows:
        raise UnknownProposal(f"there is no proposal {reference!r}. {_listing(connection)}")
    if len(rows) > 1:
        raise UnknownProposal(f"{reference!r} fits more than one proposal; give more digits. {_listing(connection)}")
    return rows[0]


def _listing(connection: Connection) -> str:
    waiting = [identity for identity in _holding(connection) if state_of(connection, identity) == "open"]
    return f"Open proposals: {', '.join(waiting)}." if waiting else "No proposal is open."


def _same_plan(connection: Connection, document: ProposalDocument) -> str | None:
    """The id under which this very plan is open already; raises `ProposalRefused` if it was denied."""
    earlier = connection.execute(
        select(ledger.proposals.c.id, ledger.proposals.c.expires_at).where(
            ledger.proposals.c.account == document.account,
            ledger.proposals.c.session == document.session,
            ledger.proposals.c.content == document.content,
        )
    ).all()
    for row in earlier:
        state = state_of(connection, row.id)
        if state == "denied":
            raise ProposalRefused(
                f"the same plan was denied as {row.id} by {denier_of(connection, row.id)}; change the strategy, or "
                "wait for the next session"
            )
        if state == "open" and row.expires_at == document.decidable_until > document.created_at:
            return str(row.id)
        if row.id == document.id:
            raise ProposalRefused(f"this very plan, made at the same instant, is {state} as {row.id}; make it again")
    return None


def _refuse_second_execution(connection: Connection, document: ProposalDocument) -> None:
    done = connection.execute(
        select(ledger.executions.c.proposal)
        .join(ledger.proposals, ledger.executions.c.proposal == ledger.proposals.c.id)
        .where(
            ledger.proposals.c.account == document.account,
            ledger.proposals.c.session == document.session,
            ledger.executions.c.status == "finished",
        )
        .limit(1)
    ).scalar_one_or_none()
    if done is not None:
        raise ProposalRefused(
            f"the plan of {document.session} was executed as proposal {done}; the next session's plan comes next"
        )


def _free_account(connection: Connection, document: ProposalDocument) -> None:
    """Supersedes the account's undecided proposal; raises `ProposalRefused` for a decided one that is not ended."""
    holder = connection.execute(
        select(ledger.proposals.c.id, ledger.proposals.c.expires_at)
        .join(ledger.open_proposals, ledger.open_proposals.c.proposal == ledger.proposals.c.id)
        .where(ledger.open_proposals.c.account == document.account)
    ).one_or_none()
    if holder is None:
        return
    state = state_of(connection, holder.id)
    void = document.created_at >= holder.expires_at
    if state == "open":
        detail = f"expired at {holder.expires_at:%Y-%m-%d %H:%M} UTC" if void else "a newer plan was proposed"
        outcome = "expired" if void else "superseded"
        ledger.record_outcome(connection, holder.id, outcome, detail, document.created_at)
    elif state == "approved" and void:
        lapse(connection, holder.id, document.created_at)
    elif document.kind == "flatten" and state == "approved":
        lapse(
            connection, holder.id, document.created_at, "approved, but a flattening was proposed before it was claimed"
        )
    elif document.kind == "flatten":
        # An execution under way stands still, and takes the account back if nobody approves the flattening.
        connection.execute(delete(ledger.open_proposals).where(ledger.open_proposals.c.proposal == holder.id))
    else:
        raise ProposalRefused(
            f"proposal {holder.id} on account {document.account!r} is {state} and not ended, so no new plan is made; "
            f"execute it, or halt the account and let it expire at {holder.expires_at:%Y-%m-%d %H:%M} UTC"
        )


def lapse(
    connection: Connection,
    proposal: str,
    now: datetime,
    why: str = "approved, but not claimed before it expired",
) -> None:
    """Ends an approved proposal that nobody claimed in time: with its claim used up it can never execute."""
    row = connection.execute(select(ledger.proposals.c.digest).where(ledger.proposals.c.id == proposal)).one()
    connection.execute(
        insert(ledger.executions).values(
            digest=row.digest,
            proposal=proposal,
            status="lapsed",
            detail=why,
            claimed_at=now,
            ended_at=now,
        )
    )
    ledger.release_account(connection, proposal)


def _as_sent(
    plan: Plan, policy: Policy, collar: Decimal | None, equity: Decimal, auction_openings: bool, reductions: str
) -> tuple[ProposedOrder, ...]:
    """The orders as they will be sent: reductions first, openings in their slices."""
    closing = [order for order in plan.orders if order.phase == "reductions"]
    openings = [order for order in plan.orders if order.phase == "openings"]
    sent = [_proposed(order, collar, reductions if _whole(order) else "day") for order in closing]
    if auction_openings or collar is None:
        return (*sent, *(_proposed(order, collar, "opg") for order in openings))
    return (
        *sent,
        *(
            _proposed(order, collar, "day", number, _limit_price(order, min(policy.opening_collar, collar)))
            for order, number in sliced(openings, policy.slice * equity)
        ),
    )


def _whole(order: PlannedOrder) -> bool:
    return order.quantity == order.quantity.to_integral_value()


def _proposed(
    order: PlannedOrder, collar: Decimal | None, time_in_force: str, number: int = 1, limit: Decimal | None = None
) -> ProposedOrder:
    low = high = None
    if collar is not None:
        low = max((order.reference_price * (1 - collar)).quantize(_COLLAR_STEP, ROUND_CEILING), ledger.ZERO)
        high = (order.reference_price * (1 + collar)).quantize(_COLLAR_STEP, ROUND_FLOOR)
    return ProposedOrder(
        symbol=order.symbol,
        side=order.side,
        quantity=order.quantity,
        phase=order.phase,
        reference_price=order.reference_price,
        order_type="market" if limit is None else "limit",
        time_in_force=time_in_force,
        collar_low=low,
        collar_high=high,
        limit_price=limit,
        slice=number,
    )


def _limit_price(order: PlannedOrder, collar: Decimal) -> Decimal:
    """The worst price of an opening order: in cents, or in hundredths of them under a dollar, never past the collar."""
    buys = order.signed_quantity > 0
    exact = order.reference_price * (1 + collar if buys else 1 - collar)
    step = _CENT if exact >= 1 else _COLLAR_STEP
    return exact.quantize(step, ROUND_FLOOR if buys else ROUND_CEILING)


def _plain(record: object) -> dict[str, Any]:
    """A dataclass as a dictionary, one level at a time: `dataclasses.asdict` would copy every number.

    A later field that says nothing new is left out, so that older documents keep their bytes and every document has
    one spelling.
    """
    return {
        each.name: _plain_value(getattr(record, each.name))
        for each in fields(record)  # type: ignore[arg-type]
        if not (each.metadata == LATER and getattr(record, each.name) == _default(each))
    }


def _default(each: "Field[Any]") -> object:
    return each.default_factory() if each.default_factory is not MISSING else each.default


def _plain_value(value: object) -> object:
    if isinstance(value, Policy | Limits | ProposedOrder):
        return _plain(value)
    if isinstance(value, tuple):
        return [_plain_value(item) for item in value]
    return value


def _parse(body: dict[str, Any]) -> ProposalDocument:
    if body.pop("format") != FORMAT:
        raise ValueError("unknown format")
    body["policy"] = policy_from(body["policy"])
    body["limits"] = limits_from(body["limits"])
    for name in ("session", "trade_session"):
        body[name] = date.fromisoformat(body[name])
    for name in ("created_at", "expires_at", "decide_by"):
        if name in body:
            body[name] = datetime.fromisoformat(body[name])
    for name in ("cash", "equity"):
        body[name] = Decimal(body[name])
    for name in ("holdings", "targets", "prices"):
        body[name] = {symbol: Decimal(figure) for symbol, figure in body[name].items()}
    if "volumes" in body:
        body["volumes"] = {symbol: Decimal(figure) for symbol, figure in body["volumes"].items()}
    for name in ("without_price", "too_small", "over_volume"):
        if name in body:
            body[name] = tuple(body[name])
    body["orders"] = tuple(_parse_order(order) for order in body["orders"])
    return ProposalDocument(**body)


def _parse_order(order: dict[str, Any]) -> ProposedOrder:
    for name in ("quantity", "reference_price", "collar_low", "collar_high", "limit_price"):
        if order.get(name) is not None:
            order[name] = Decimal(order[name])
    return ProposedOrder(**order)
