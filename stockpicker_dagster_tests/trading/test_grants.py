"""On PostgreSQL the Dagster role cannot write decisions, nor anything that is sent for a live account."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import migrate, open_database, transaction
from stockpicker_dagster.trading import accounts, ledger, locks
from stockpicker_dagster.trading.accounts import ensure_paper_account
from stockpicker_dagster.trading.approval import expire_due
from stockpicker_dagster.trading.flatten import propose_flattening
from stockpicker_dagster.trading.grants import grant_script
from stockpicker_dagster.trading.proposal import load
from stockpicker_dagster.trading.trader_reports import tell
from stockpicker_dagster_tests.trading.conftest import TradingDesk

NOW = datetime(2024, 3, 5, 1, 15, tzinfo=UTC)
ROLES = {"dagster": "sp_dagster", "trader": "sp_trader", "desk": "sp_desk"}
PRICES = {"AAA": 50.0, "BBB": 20.0}


@pytest.fixture(scope="module")
def as_role(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Opens the ledger of a server as one of three roles, after the script was run twice."""
    url = request.getfixturevalue("postgres_url")
    owner = open_database(url)
    with owner.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    migrate(owner)
    with owner.begin() as connection:
        for role in ROLES.values():
            connection.execute(text(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'"))
    for _ in range(2):
        with owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(grant_script(**ROLES))
    opened: list[Engine] = []

    def open_as(role: str) -> Engine:
        address = make_url(url).set(username=ROLES[role], password="secret")
        opened.append(open_database(address.render_as_string(hide_password=False)))
        return opened[-1]

    ensure_paper_account(owner, "live", NOW)
    with transaction(owner) as connection:
        connection.execute(ledger.accounts.update().where(ledger.accounts.c.id == "live").values(mode="live"))
    yield open_as
    for engine in opened:
        engine.dispose()
    with owner.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
        for role in ROLES.values():
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))
    owner.dispose()


def test_dagster_trades_on_paper_what_the_desk_decided(as_role: Any) -> None:
    planner, desk = TradingDesk(as_role("dagster")), TradingDesk(as_role("desk"))
    proposal = planner.proposed({"AAA": 0.5, "BBB": -0.5}, PRICES)
    desk.approve(proposal)
    report = planner.execute(proposal)
    assert report.status == "finished"
    assert {order.status for order in report.orders} == {"filled"}


def test_dagster_halts_and_only_the_desk_lifts_a_halt(as_role: Any) -> None:
    accounts.halt(as_role("dagster"), "live", "reconciliation", "the books differ", NOW)
    with pytest.raises(ProgrammingError, match="permission denied"):
        accounts.resume(as_role("dagster"), "live", "eve", NOW)
    assert accounts.resume(as_role("desk"), "live", "ada", NOW) == 1


def test_dagster_cannot_decide(as_role: Any) -> None:
    planner = TradingDesk(as_role("dagster"), account="second")
    proposal = planner.proposed({"AAA": 0.5, "BBB": -0.5}, PRICES)
    with pytest.raises(ProgrammingError, match="permission denied"):
        planner.approve(proposal)
    with pytest.raises(ProgrammingError, match="row-level security"), transaction(planner.engine) as connection:
        ledger.record_outcome(connection, proposal, "approved", "forged", NOW)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO order_intents (id, account, proposal, symbol, side, quantity, phase, slice, attempt, created_at) "
        "VALUES ('x', 'live', 'x', 'AAA', 'buy', '1', 'openings', 1, 1, '2024-01-01')",
        "INSERT INTO positions (account, symbol, quantity) VALUES ('live', 'AAA', '1')",
        "INSERT INTO cash_movements (account, reference, amount, recorded_at) VALUES ('live', 'x', '1', 'y')",
        "INSERT INTO execution_locks (account, fencing, owner, taken_at, renewed_at) VALUES ('live', 9, 'x', 'y', 'z')",
        "UPDATE accounts SET mode = 'paper' WHERE id = 'live'",
        "UPDATE accounts SET base_url = 'http://elsewhere'",
        "UPDATE accounts SET live_enabled = true",
        "UPDATE accounts SET limits = '{}'",
        "DELETE FROM accounts",
        "INSERT INTO people (name, role, created_by, created_at) VALUES ('eve', 'administrator', 'eve', 'now')",
        "SELECT password_hash FROM people",
        "SELECT * FROM api_tokens",
        "SELECT * FROM sessions",
        "DELETE FROM decisions",
        "DELETE FROM halts",
        "UPDATE halts SET resumed_by = 'eve', resumed_at = 'now'",
        # An account of its own making, at a broker of its own choosing.
        "INSERT INTO accounts (id, broker, mode, base_url, approvals_needed, four_eyes, limits, policy, costs, cash, "
        "created_at) VALUES ('eve', 'alpaca', 'paper', 'http://elsewhere', 1, false, '{}', '{}', '{}', 0, 'now')",
        "INSERT INTO accounts (id, broker, mode, base_url, approvals_needed, four_eyes, limits, policy, costs, cash, "
        "created_at) VALUES ('eve', 'paper', 'live', 'x', 1, false, '{}', '{}', '{}', 0, 'now')",
        "ALTER TABLE decisions DISABLE TRIGGER ALL",
        "TRUNCATE proposals CASCADE",
    ],
)
def test_dagster_cannot_touch_live_accounts_policies_or_people(as_role: Any, statement: str) -> None:
    with (
        pytest.raises(ProgrammingError, match=r"permission denied|row-level security|must be owner"),
        transaction(as_role("dagster")) as connection,
    ):
        connection.execute(text(statement))


def test_dagster_cannot_use_up_a_live_proposal_by_a_claim_of_a_paper_one(as_role: Any) -> None:
    planner, desk = TradingDesk(as_role("dagster"), account="fifth"), TradingDesk(as_role("desk"), account="sixth")
    proposals = [load(each.engine, each.proposed({"AAA": 0.5, "BBB": -0.5}, PRICES)) for each in (planner, desk)]
    with transaction(desk.engine) as connection:
        connection.execute(ledger.accounts.update().where(ledger.accounts.c.id == "sixth").values(mode="live"))
    row = {"digest": proposals[1].digest, "proposal": proposals[0].id, "status": "finished", "detail": ""}
    with pytest.raises(ProgrammingError, match="row-level security"), transaction(planner.engine) as connection:
        connection.execute(ledger.executions.insert().values(**row, claimed_at=NOW))


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO decisions (proposal, person, decision, reason, decided_at) "
        "VALUES ('x', 'eve', 'approve', '', 'y')",
        "UPDATE accounts SET base_url = 'http://elsewhere'",
        "UPDATE halts SET resumed_by = 'eve', resumed_at = 'now'",
        "SELECT password_hash FROM people",
        "SELECT totp_secret FROM people",
        "INSERT INTO proposals (id, digest, content, account, strategy, session, document, created_at, expires_at) "
        "VALUES ('x', 'x', 'x', 'live', 'x', '2024-01-01', '', 'x', 'x')",
    ],
)
def test_a_trader_cannot_decide_or_propose(as_role: Any, statement: str) -> None:
    with (
        pytest.raises(ProgrammingError, match=r"permission denied"),
        transaction(as_role("trader")) as connection,
    ):
        connection.execute(text(statement))


def test_a_trader_executes(as_role: Any) -> None:
    engine, desk = as_role("trader"), TradingDesk(as_role("desk"), account="third")
    proposal = desk.proposed({"AAA": 0.5, "BBB": -0.5}, PRICES)
    desk.approve(proposal)
    with transaction(as_role("desk")) as connection:
        connection.execute(ledger.accounts.update().where(ledger.accounts.c.id == "third").values(approvals_needed=1))
    trader = TradingDesk(engine, market=desk.market, account="third")
    assert trader.execute(proposal).status == "finished"
    assert trader.broker().positions() == {"AAA": Decimal(980), "BBB": Decimal(-2450)}
    assert desk.session == date(2024, 3, 4)


def test_a_trader_says_how_it_is_and_gives_a_suspended_execution_its_account_back(as_role: Any) -> None:
    engine, desk = as_role("trader"), TradingDesk(as_role("desk"), account="fourth")
    desk.rebalance({"AAA": 0.5, "BBB": -0.5}, PRICES)
    under_way = desk.proposed({"AAA": 0.2, "BBB": -0.2}, PRICES)
    desk.approve(under_way)
    desk.market.opened = False
    assert desk.execute(under_way).status == "working"
    asked = {"venue": desk.market, "latest_stored": desk.session}
    flattening = propose_flattening(desk.engine, "fourth", "os:risk", desk.now, **asked)
    lock = locks.take(engine, "fourth")
    tell(engine, lock, NOW, NOW, "waits", "", None)
    locks.release(engine, lock)
    assert expire_due(engine, desk.now + timedelta(days=2)) == [flattening]
    with engine.connect() as connection:
        assert ledger.holds_account(connection, under_way)


@pytest.mark.parametrize("names", [("a; DROP TABLE x", "b", "c"), ("a", "a", "c"), ("A", "b", "c"), ("", "b", "c")])
def test_role_names_that_cannot_be_are_refused(names: tuple[str, str, str]) -> None:
    with pytest.raises(InvalidInput):
        grant_script(*names)
