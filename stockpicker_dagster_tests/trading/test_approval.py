"""However many decide at once, there is one outcome; expiry and denial win; nobody decides twice."""

import threading
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import Engine, func, select, update

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import read_account
from stockpicker_dagster.trading.approval import DecisionRefused, Expired, decide, expire_due, outcomes_after
from stockpicker_dagster.trading.desk import propose
from stockpicker_dagster.trading.execution import NotApproved, execute
from stockpicker_dagster.trading.people import directory, secrets
from stockpicker_dagster.trading.people.sign_in import Proof
from stockpicker_dagster.trading.proposal import UnknownProposal, build, load, register
from stockpicker_dagster.trading.rebalance import plan_orders
from stockpicker_dagster.trading.risk import AccountState
from stockpicker_dagster.trading.signatures import NotSigned, TrustedKeys, load_trusted_keys, make_signing_key

PRICES = {"AAA": 50.0, "BBB": 20.0}
TARGETS = {"AAA": 0.5, "BBB": -0.5}


def ask_account_for(trading_desk: Any, **columns: object) -> None:
    with transaction(trading_desk.engine) as connection:
        connection.execute(update(ledger.accounts).values(**columns))


def test_an_approval_is_recorded_with_who_when_and_why(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    decided = decide(trading_desk.engine, proposal[:8], "os:me", "approve", "looks right", trading_desk.now)
    assert (decided.proposal, decided.outcome) == (proposal, "approved")
    outcome = outcomes_after(trading_desk.engine, 0)[0]
    assert (outcome.proposal, outcome.outcome, outcome.detail) == (proposal, "approved", "os:me: looks right")
    assert (outcome.account, outcome.strategy, outcome.session) == ("paper", "momentum", trading_desk.session)
    assert outcome.recorded_at == trading_desk.now
    assert outcomes_after(trading_desk.engine, outcome.sequence) == []


def test_sixteen_deciders_racing_leave_one_outcome(any_engine: Engine, trading_desk: Any) -> None:
    stand = type(trading_desk)(any_engine)
    for round_ in range(3):
        proposal = stand.proposed({"AAA": 0.5, "BBB": -0.4 - round_ / 100}, PRICES)
        barrier = threading.Barrier(16)
        answers: list[str] = []

        def race(number: int, proposal: str = proposal, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            decision: Any = "approve" if number % 2 else "deny"
            try:
                answers.append(str(decide(any_engine, proposal, f"os:p{number}", decision, "race", stand.now).outcome))  # noqa: B023
            except DecisionRefused:
                answers.append("refused")  # noqa: B023

        threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 16
        # At most one approval, then one denial that revokes it; everybody after that is refused.
        assert answers.count("approved") <= 1
        assert answers.count("denied") == 1
        assert answers.count("refused") == 16 - 1 - answers.count("approved")
        assert load(any_engine, proposal).state == "denied"
        recorded = outcomes_after(any_engine, 0)
        assert len([outcome for outcome in recorded if outcome.proposal == proposal]) == 1
    assert [outcome.sequence for outcome in recorded] == [1, 2, 3]


def test_nobody_decides_twice(trading_desk: Any) -> None:
    ask_account_for(trading_desk, approvals_needed=2)
    proposal = trading_desk.proposed(TARGETS, PRICES)
    decide(trading_desk.engine, proposal, "os:me", "approve", "", trading_desk.now)
    for decision in ("approve", "deny"):
        with pytest.raises(DecisionRefused, match="nobody decides twice"):
            decide(trading_desk.engine, proposal, "os:me", decision, "again", trading_desk.now)
    assert load(trading_desk.engine, proposal).state == "open"


def test_a_quorum_is_waited_for(trading_desk: Any) -> None:
    ask_account_for(trading_desk, approvals_needed=2)
    proposal = trading_desk.proposed(TARGETS, PRICES)
    first = decide(trading_desk.engine, proposal, "os:one", "approve", "", trading_desk.now)
    assert (first.outcome, first.approvals, first.approvals_needed) == (None, 1, 2)
    assert decide(trading_desk.engine, proposal, "os:two", "approve", "", trading_desk.now).outcome == "approved"


def test_a_quorum_that_was_raised_is_recounted_at_the_claim(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    trading_desk.approve(proposal)
    ask_account_for(trading_desk, approvals_needed=2)
    with pytest.raises(StockPickerError, match="1 of the 2 approvals"):
        trading_desk.execute(proposal)


def test_the_author_does_not_approve_where_four_eyes_are_asked(trading_desk: Any) -> None:
    ask_account_for(trading_desk, four_eyes=True)
    proposal = trading_desk.proposed(TARGETS, PRICES)
    with pytest.raises(DecisionRefused, match="four eyes"):
        decide(trading_desk.engine, proposal, "os:author", "approve", "", trading_desk.now)
    assert decide(trading_desk.engine, proposal, "os:author", "deny", "mine", trading_desk.now).outcome == "denied"


def test_expiry_is_a_denial_from_its_very_instant(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    expires = load(trading_desk.engine, proposal).document.expires_at
    with pytest.raises(Expired, match="expired at 2024-03-05 10:00:00 UTC"):
        decide(trading_desk.engine, proposal, "os:me", "approve", "", expires)
    assert load(trading_desk.engine, proposal).state == "expired"
    assert [outcome.outcome for outcome in outcomes_after(trading_desk.engine, 0)] == ["expired"]
    with trading_desk.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(ledger.decisions)).scalar_one() == 0


def test_a_decision_one_instant_before_expiry_counts(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    last = load(trading_desk.engine, proposal).document.expires_at - timedelta(microseconds=1)
    assert decide(trading_desk.engine, proposal, "os:me", "approve", "", last).outcome == "approved"


def test_what_nobody_decided_expires(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    assert expire_due(trading_desk.engine, trading_desk.now) == []
    assert expire_due(trading_desk.engine, trading_desk.now + timedelta(days=1)) == [proposal]
    assert expire_due(trading_desk.engine, trading_desk.now + timedelta(days=1)) == []


def test_an_executed_proposal_cannot_be_denied_any_more(trading_desk: Any) -> None:
    report = trading_desk.rebalance(TARGETS, PRICES)
    with pytest.raises(DecisionRefused, match="already executed"):
        decide(trading_desk.engine, report.proposal, "os:late", "deny", "too late", trading_desk.now)


def test_unknown_ids_and_senseless_requests_are_refused(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    engine, now = trading_desk.engine, trading_desk.now
    with pytest.raises(UnknownProposal, match=proposal):
        decide(engine, "abcdef012345", "os:me", "approve", "", now)
    with pytest.raises(InvalidInput, match="needs a reason"):
        decide(engine, proposal, "os:me", "deny", " ", now)
    with pytest.raises(InvalidInput, match="cannot decide"):
        decide(engine, proposal, "me", "approve", "", now)
    with pytest.raises(InvalidInput, match="no decision"):
        decide(engine, proposal, "os:me", "maybe", "", now)  # type: ignore[arg-type]
    assert load(engine, proposal).state == "open"


# People with logins, and live accounts


@pytest.fixture
def staffed(trading_desk: Any) -> Any:
    """A desk with people: `ada` administers, `ann` and `bob` approve, `res` researches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
        for name, role in (("ada", "administrator"), ("ann", "approver"), ("bob", "approver"), ("res", "researcher")):
            directory.add_person(trading_desk.engine, name, role, "a long password", "ada", trading_desk.now)  # type: ignore[arg-type]
    return trading_desk


def make_live(desk: Any, weight: str = "0.5", **settings: Any) -> str:
    """The desk's account and proposal as if they were live; the broker stays the paper one."""
    with transaction(desk.engine) as connection:
        connection.execute(ledger.accounts.update().values({"mode": "live", "live_enabled": True, **settings}))
    with desk.engine.connect() as connection:
        account = read_account(connection, "paper")
    paper = desk.market.prices = {"AAA": Decimal(50), "BBB": Decimal(20)}
    state = AccountState(account.cash, {})
    targets = {"AAA": Decimal(weight), "BBB": -Decimal(weight)}
    plan = plan_orders(targets, paper, {}, state.equity(paper), account.policy)
    document = build(
        account,
        strategy="momentum",
        author="os:author",
        limits=account.limits,
        session=desk.session,
        trade_session=desk.session + timedelta(days=1),
        venue_name="set",
        venue_simulated=True,
        cash=account.cash,
        equity=account.cash,
        holdings={},
        targets=targets,
        prices=paper,
        plan=plan,
        volumes=dict.fromkeys(paper, Decimal(10**9)),
        model_id="m",
        data_version="d",
        code_version="c",
        created_at=desk.now,
        expires_at=desk.now + timedelta(hours=12),
    )
    return register(desk.engine, document)


def approve_live(desk: Any, proposal: str, person: str, signer: Any, ago: timedelta = timedelta()) -> Any:
    proof = Proof(person, "password", desk.now - ago)
    return decide(desk.engine, proposal, person, "approve", "", desk.now, proof=proof, signer=signer)


def keys(tmp_path: Path) -> tuple[Any, TrustedKeys]:
    signer = make_signing_key(tmp_path / "desk")
    (tmp_path / "trusted").write_text(signer.public_text)
    return signer, load_trusted_keys(tmp_path / "trusted")


def run(desk: Any, proposal: str, trusted: TrustedKeys | None) -> Any:
    return execute(desk.engine, proposal, desk.broker(), desk.market, desk.now, trusted=trusted)


def test_once_there_are_people_only_approvers_decide(staffed: Any) -> None:
    proposal = staffed.proposed(TARGETS, PRICES)
    for person, error in (
        ("os:approver", "people have logins"),
        ("res", "needs the role approver"),
        ("nobody", "nobody called"),
    ):
        with pytest.raises(StockPickerError, match=error):
            staffed.approve(proposal, person)
    assert load(staffed.engine, proposal).state == "open"
    staffed.approve(proposal, "ann")
    assert load(staffed.engine, proposal).state == "approved"


def test_a_demoted_or_disabled_approver_no_longer_counts_at_the_claim(staffed: Any) -> None:
    proposal = staffed.proposed(TARGETS, PRICES)
    staffed.approve(proposal, "ann")
    directory.set_role(staffed.engine, "ann", "researcher", "ada", staffed.now)
    with pytest.raises(NotApproved, match="0 of the 1 approvals"):
        staffed.execute(proposal)
    directory.set_role(staffed.engine, "ann", "approver", "ada", staffed.now)
    directory.disable(staffed.engine, "ann", "ada", staffed.now)
    with pytest.raises(NotApproved, match="0 of the 1 approvals"):
        staffed.execute(proposal)
    assert staffed.broker().open_orders() == []
    directory.enable(staffed.engine, "ann", "ada", staffed.now)
    assert staffed.execute(proposal).status == "finished"


def test_an_account_that_became_stricter_is_kept_at_the_claim(staffed: Any) -> None:
    proposal = staffed.proposed(TARGETS, PRICES)
    staffed.approve(proposal, "ann")
    with transaction(staffed.engine) as connection:
        connection.execute(ledger.accounts.update().values(approvals_needed=2))
    with pytest.raises(NotApproved, match="1 of the 2 approvals"):
        staffed.execute(proposal)


@pytest.mark.parametrize("author", ["ann", "os:ann"])
def test_four_eyes_see_through_the_two_names_of_one_person(staffed: Any, author: str) -> None:
    with transaction(staffed.engine) as connection:
        connection.execute(ledger.accounts.update().values(four_eyes=True))
    proposal = desk_proposal(staffed, author)
    for person, os_user in (("ann", None), ("bob", "os:ann")):
        if author == "ann" and person == "bob":
            continue
        with pytest.raises(DecisionRefused, match="four eyes"):
            decide(staffed.engine, proposal, person, "approve", "", staffed.now, os_user=os_user)
    decide(staffed.engine, proposal, "bob", "approve", "", staffed.now, os_user="os:bob")
    assert staffed.execute(proposal).status == "finished"


def desk_proposal(desk: Any, author: str) -> str:
    desk.market.prices = {symbol: Decimal(str(price)) for symbol, price in PRICES.items()}
    outcome = propose(
        desk.engine,
        account_id="paper",
        strategy="momentum",
        author=author,
        session=desk.session,
        targets=TARGETS,
        reference_prices=PRICES,
        volumes=dict.fromkeys(PRICES, 1e9),
        corporate_actions=(),
        venue=desk.market,
        venue_name="set",
        latest_stored=desk.session,
        model_id="m",
        code_version="c",
        data_version="d",
        limits={},
        now=desk.now,
    )
    assert outcome.id is not None
    return outcome.id


def test_a_live_decision_needs_a_fresh_proof_of_its_own_person_and_a_signature(staffed: Any, tmp_path: Path) -> None:
    proposal = make_live(staffed)
    signer, trusted = keys(tmp_path)
    with pytest.raises(DecisionRefused, match="password or a code of ann"):
        decide(staffed.engine, proposal, "ann", "approve", "", staffed.now, signer=signer)
    for ago in (timedelta(minutes=6), timedelta(seconds=-1)):
        with pytest.raises(DecisionRefused, match="last 5 minutes"):
            approve_live(staffed, proposal, "ann", signer, ago)
    proof = Proof("bob", "password", staffed.now)
    with pytest.raises(DecisionRefused, match="of ann"):
        decide(staffed.engine, proposal, "ann", "approve", "", staffed.now, proof=proof, signer=signer)
    with pytest.raises(DecisionRefused, match="no signing key"):
        approve_live(staffed, proposal, "ann", None)
    assert load(staffed.engine, proposal).state == "open"
    assert approve_live(staffed, proposal, "ann", signer).outcome == "approved"
    assert run(staffed, proposal, trusted).status == "finished"


def test_a_live_approval_that_was_written_into_the_database_executes_nothing(staffed: Any, tmp_path: Path) -> None:
    proposal = make_live(staffed)
    signer, trusted = keys(tmp_path)
    with transaction(staffed.engine) as connection:
        ledger.record_outcome(connection, proposal, "approved", "forged", staffed.now)
        forged = {"proposal": proposal, "person": "ann", "decision": "approve", "reason": "", "method": "password"}
        connection.execute(ledger.decisions.insert().values(**forged, decided_at=staffed.now, key=signer.key))
    for believed, message in ((trusted, "is not signed"), (None, "no key is trusted"), (TrustedKeys(), "no key")):
        with pytest.raises(StockPickerError, match=message):
            run(staffed, proposal, believed)
    assert staffed.broker().open_orders() == []
    assert load(staffed.engine, proposal).state == "approved"


def test_a_signature_of_another_proposal_executes_nothing(staffed: Any, tmp_path: Path) -> None:
    signer, trusted = keys(tmp_path)
    first = make_live(staffed)
    approve_live(staffed, first, "ann", signer)
    with staffed.engine.connect() as connection:
        given = connection.execute(ledger.decisions.select()).one()
    proof = Proof("bob", "password", staffed.now)
    decide(staffed.engine, first, "bob", "deny", "no", staffed.now, proof=proof, signer=signer)
    second = make_live(staffed, "0.4")
    with transaction(staffed.engine) as connection:
        connection.execute(ledger.decisions.insert().values(**{**given._mapping, "proposal": second}))
        ledger.record_outcome(connection, second, "approved", "forged", staffed.now)
    with pytest.raises(NotSigned, match="does not fit"):
        run(staffed, second, trusted)
    assert staffed.broker().open_orders() == []


def test_live_trading_that_is_switched_off_decides_and_executes_nothing(staffed: Any, tmp_path: Path) -> None:
    proposal = make_live(staffed)
    signer, trusted = keys(tmp_path)
    approve_live(staffed, proposal, "ann", signer)
    with transaction(staffed.engine) as connection:
        connection.execute(ledger.accounts.update().values(live_enabled=False))
    with pytest.raises(StockPickerError, match="switched off"):
        run(staffed, proposal, trusted)
    proof = Proof("bob", "password", staffed.now)
    assert decide(staffed.engine, proposal, "bob", "deny", "off", staffed.now, proof=proof, signer=signer).outcome
    again = make_live(staffed, "0.4", live_enabled=False)
    with pytest.raises(DecisionRefused, match="switched off"):
        approve_live(staffed, again, "ann", signer)


def test_credentials_of_another_account_execute_nothing(staffed: Any, tmp_path: Path) -> None:
    proposal = make_live(staffed, broker_account="U777")
    signer, trusted = keys(tmp_path)
    approve_live(staffed, proposal, "ann", signer)
    with pytest.raises(StockPickerError, match="account U777, but the credentials at hand are for paper"):
        run(staffed, proposal, trusted)
    assert load(staffed.engine, proposal).state == "approved"
