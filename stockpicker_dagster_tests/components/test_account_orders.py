"""What the desk is told about a plan: prices, events and model of the session alone; and what history is told."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stockpicker_dagster.components import account_orders
from stockpicker_dagster.components.account_orders import (
    EXECUTIONS_SCHEMA,
    execute_session,
    flatten_account,
    propose_rebalance,
)
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.identity import REUSED_AFTER
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA
from stockpicker_dagster.market.sources.silence import DELISTED_AFTER
from stockpicker_dagster.market.sources.simulated import SimulatedVenue
from stockpicker_dagster.research.plan import PLAN_SCHEMA
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import Bundle, MissingBundle, MissingDays
from stockpicker_dagster.trading.approval import decide
from stockpicker_dagster.trading.corporate_actions import CorporateAction
from stockpicker_dagster.trading.desk import ProposalOutcome
from stockpicker_dagster.trading.execution import ExecutedOrder, ExecutionReport
from stockpicker_dagster.trading.proposal import load
from stockpicker_dagster_tests.components.forms import strategy_form

CALENDAR = trading_calendar("XNYS")
FORM = strategy_form(prices={"start": date(2018, 1, 2), "stocks": 12}, trading={"limits": {"orders": 50}})
SESSION = date(2023, 6, 30)
DAYS = CALENDAR.sessions(date(2023, 6, 1), date(2023, 7, 5))
"""The lake of these tests; it goes on after the session where a test says so."""
NOW = datetime(2023, 7, 1, 1, 15, tzinfo=UTC)
MODEL = b'{"data_version": "data-1", "model_id": "model-1"}'


def ago(sessions: int) -> date:
    return CALENDAR.offset(SESSION, -sessions)


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    monkeypatch.setattr(Deployment, "now", lambda _: NOW)


def row(
    symbol: str, day: date, close: float = 10.0, dividend: float = 0.0, split: float = 1.0, volume: float = 1e6
) -> dict[str, Any]:
    prices = dict.fromkeys(("open", "high", "low", "close"), close)
    events = {"dividend": dividend, "split_ratio": split, "adjustment": 1.0, "known_at": None, "source": "simulated"}
    return {"symbol": symbol, "date": day, **prices, "volume": volume, **events}


def delisting(symbol: str, day: date, last: date, result: float | None) -> dict[str, Any]:
    known = {"date": day, "last_session": last, "known_at": day}
    return {"symbol": symbol, "reason": "merger", "return": result, **known}


def store(
    prices: Sequence[dict[str, Any]] = (), delistings: Sequence[dict[str, Any]] = (), through: date = SESSION
) -> None:
    """Prices of A and B at 10 on every day through `through`, besides what is given, and the model of the quarter."""
    days = sorted({day for day in DAYS if day <= through} | {each["date"] for each in prices})
    special = {(each["symbol"], each["date"]) for each in prices}
    quiet = [row(symbol, day) for day in days for symbol in ("A", "B") if (symbol, day) not in special]
    lake = Deployment().lake
    tables: Mapping[str, tuple[list[dict[str, Any]], Mapping[str, pl.DataType]]] = {
        "simulated/prices": ([*quiet, *prices], PRICES_SCHEMA),
        "simulated/delistings": (list(delistings), DELISTINGS_SCHEMA),
    }
    for table, (rows, schema) in tables.items():
        frame = pl.DataFrame(rows, schema=schema, orient="row").sort("date", "symbol")
        lake.write_days(table, frame, days, lambda year: CALENDAR.sessions(date(year, 1, 1), date(year, 12, 31)))
    lake.write_bundle("mine/trained_model", "2023-04-01", Bundle({"model.json": MODEL}))


PLAN = pl.DataFrame(
    {
        "symbol": ["A", "B"],
        "date": [SESSION] * 2,
        "target_weight": [0.02, -0.02],
        "score": [1.0, -1.0],
        "rank": [1, 2],
        "reference_price": [10.0, 10.0],
        "model_id": ["model-1"] * 2,
    },
    schema=PLAN_SCHEMA,
)
Told = list[dict[str, Any]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What the desk was asked to propose; it holds nothing and has booked nothing unless a test says so."""
    asked: Told = []

    def propose(engine: Any, **arguments: Any) -> ProposalOutcome:
        asked.append(arguments)
        return ProposalOutcome(None, None, "this desk is a test")

    monkeypatch.setattr(account_orders, "propose", propose)
    account(monkeypatch)
    return asked


def account(monkeypatch: pytest.MonkeyPatch, held: Sequence[str] = (), booked: date | None = None) -> None:
    monkeypatch.setattr(account_orders, "held_symbols", lambda engine, name: list(held))
    monkeypatch.setattr(account_orders, "booked_through", lambda engine, name: booked)
    monkeypatch.setattr(account_orders, "fees_of_borrowed", lambda *_: [])


def propose() -> account_orders.Proposed:
    return propose_rebalance(Deployment(), "mine", FORM, SESSION, PLAN)


def test_the_desk_is_told_the_plan_and_where_it_came_from(told: Told) -> None:
    store()
    assert propose() == account_orders.Proposed(None, "no proposal: this desk is a test")
    [asked] = told
    assert asked["targets"] == {"A": 0.02, "B": -0.02}
    assert asked["reference_prices"] == {"A": 10.0, "B": 10.0}
    assert (asked["session"], asked["latest_stored"], asked["now"]) == (SESSION, SESSION, NOW)
    assert (asked["model_id"], asked["data_version"]) == ("model-1", "data-1")
    assert (asked["strategy"], asked["account_id"], asked["venue_name"]) == ("mine", "paper", "simulated")
    assert asked["limits"] == {"orders": 50}
    assert asked["author"].startswith("os:")


def test_the_newest_session_alone_is_proposed(told: Told) -> None:
    store(through=CALENDAR.next_session(SESSION))
    outcome = propose()
    assert outcome.proposal_id is None
    assert "2023-06-30 is history, the last session stored is 2023-07-03" in outcome.sentence
    assert told == []


def test_a_session_that_decides_nothing_is_not_proposed(told: Told) -> None:
    store()
    yesterday = PLAN.with_columns(date=pl.lit(ago(1)))
    outcome = propose_rebalance(Deployment(), "mine", FORM, SESSION, yesterday)
    assert outcome.sentence == "no proposal: 'mine' decides nothing after the close of 2023-06-30"
    assert told == []


def test_a_plan_whose_model_is_not_stored_is_an_error(told: Told) -> None:
    store()
    other = strategy_form(prices={"start": date(2018, 1, 2), "stocks": 12})
    with pytest.raises(MissingBundle, match="yours/trained_model was never materialized for '2023-04-01'"):
        propose_rebalance(Deployment(), "yours", other, SESSION, PLAN)
    assert told == []


EVENTS = [
    row("A", ago(4), 10.0, dividend=0.1),
    row("A", ago(3), 10.0, dividend=0.2),
    row("A", ago(1), 5.0, dividend=0.3, split=2.0),
    row("B", SESSION, 40.0, split=0.25),
]


def actions(told: Told) -> list[CorporateAction]:
    return sorted(told[-1]["corporate_actions"], key=lambda each: (each.session, each.symbol, each.kind))


def test_events_after_those_booked_are_told_up_to_the_session(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    store(EVENTS)
    account(monkeypatch, booked=ago(4))
    propose()
    assert actions(told) == [
        CorporateAction(ago(3), "A", "dividend", Decimal("0.2")),
        CorporateAction(ago(1), "A", "dividend", Decimal("0.3")),
        CorporateAction(ago(1), "A", "split", Decimal("2.0"), Decimal("5.0")),
        CorporateAction(SESSION, "B", "split", Decimal("0.25"), Decimal("40.0")),
    ]
    account(monkeypatch, booked=ago(3))
    propose()
    assert min(action.session for action in actions(told)) == ago(1)


@pytest.mark.parametrize("booked", [None, SESSION], ids=["never", "already"])
def test_no_event_is_told_before_an_accounts_first_proposal_or_twice(
    told: Told, monkeypatch: pytest.MonkeyPatch, booked: date | None
) -> None:
    store(EVENTS)
    account(monkeypatch, booked=booked)
    propose()
    assert actions(told) == []


def test_a_session_that_was_never_stored_is_an_error_rather_than_a_lost_event(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(EVENTS)
    account(monkeypatch, booked=CALENDAR.offset(DAYS[0], -3))
    with pytest.raises(MissingDays, match=r"simulated/prices was never materialized for 2 days"):
        propose()
    assert told == []


def test_a_delisting_is_told_with_the_last_close_and_its_return_if_known(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_rows = [row("GONE", ago(5), 7.0), row("GONE", ago(4), 6.0), row("SOLD", ago(2), 30.0)]
    store(
        last_rows,
        [
            delisting("GONE", ago(2), ago(4), None),
            delisting("SOLD", SESSION, ago(2), 0.125),
            delisting("OLD", ago(3), ago(9), -1.0),
        ],
    )
    account(monkeypatch, booked=ago(2))
    propose()
    assert actions(told) == [CorporateAction(SESSION, "SOLD", "delisting", Decimal("0.125"), Decimal("30.0"))]
    account(monkeypatch, booked=ago(3))
    propose()
    assert actions(told)[0] == CorporateAction(ago(2), "GONE", "delisting", None, Decimal("6.0"))


def test_a_delisting_of_a_stock_without_any_stored_price_concerns_no_account(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_lake = CALENDAR.offset(DAYS[0], -20)
    store(delistings=[delisting("OLD", ago(1), before_the_lake, -0.5), delisting("ODD", SESSION, ago(9), 0.0)])
    account(monkeypatch, booked=ago(2))
    propose()
    assert actions(told) == []


def test_volumes_are_means_of_twenty_sessions_in_shares_of_the_session(told: Told) -> None:
    """A split in mid-window doubles the shares; the day before the window, and what is not planned, do not count."""
    window = [ago(back) for back in range(20)]
    before = [row("A", ago(back), volume=1_000.0) for back in range(11, 20)]
    after = [row("A", ago(back), volume=2_000.0, split=2.0 if back == 10 else 1.0) for back in range(11)]
    store([*before, *after, row("A", ago(20), volume=1e9), *(row("C", day) for day in window)])
    propose()
    assert told[0]["volumes"] == {"A": 2_000.0, "B": 1e6}


def test_nothing_after_the_session_is_in_its_volumes(told: Told) -> None:
    store()
    before = account_orders._mean_volumes(FORM, Deployment().lake, ago(1), PLAN["symbol"])
    store([row("A", SESSION, volume=1e9, split=3.0)])
    assert account_orders._mean_volumes(FORM, Deployment().lake, ago(1), PLAN["symbol"]) == before


def test_a_day_without_a_row_is_one_without_a_trade_and_a_stock_without_any_is_not_there(told: Told) -> None:
    store([row("RARE", ago(3), volume=40_000.0)])
    plan = pl.DataFrame({"symbol": ["RARE", "NONE"]})["symbol"]
    assert account_orders._mean_volumes(FORM, Deployment().lake, SESSION, plan) == {"RARE": 2_000.0}


def test_a_session_of_the_window_that_was_never_stored_is_an_error(told: Told) -> None:
    store()
    with pytest.raises(MissingDays, match="simulated/prices was never materialized"):
        account_orders._mean_volumes(FORM, Deployment().lake, CALENDAR.offset(DAYS[0], 3), PLAN["symbol"])


def test_a_held_stock_that_did_not_trade_is_priced_with_its_last_close_while_it_counts_as_listed(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = REUSED_AFTER + DELISTED_AFTER
    idle = [row("IDLE", ago(listed), 3.0), row("GONE", ago(listed + 1), 3.0)]
    store([row("HALTED", ago(12), 1.0), row("HALTED", ago(10), 2.0), *idle])
    account(monkeypatch, held=["HALTED", "IDLE", "GONE", "A"])
    propose()
    assert told[0]["reference_prices"] == {"A": 10.0, "B": 10.0, "HALTED": 2.0, "IDLE": 3.0}
    store([row("HALTED", ago(9), 4.0), row("HALTED", ago(10), 2.0)])
    propose()
    assert told[1]["reference_prices"]["HALTED"] == 4.0


def test_a_held_stock_is_never_priced_after_the_session(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing after the session is stored when it is proposed, but a delisting is priced on an earlier day."""
    store([row("GONE", ago(3), 6.0), row("GONE", ago(1), 99.0)], [delisting("GONE", SESSION, ago(3), 0.0)])
    account(monkeypatch, booked=ago(1))
    propose()
    [action] = actions(told)
    assert action.price == Decimal("6.0")


# The real desk


def test_a_proposal_is_registered_once_and_filled_once_it_is_approved() -> None:
    store()
    deployment = Deployment()
    first = propose()
    assert first.proposal_id is not None
    assert first.proposal_id in first.sentence
    assert propose() == first
    document = load(deployment.database, first.proposal_id).document
    assert (document.strategy, document.session, document.trade_session) == ("mine", SESSION, date(2023, 7, 3))
    assert document.expires_at - NOW == timedelta(hours=24)

    waiting = execute_session(deployment, "mine", FORM, SESSION)
    assert waiting.orders.is_empty()
    assert waiting.orders.schema == EXECUTIONS_SCHEMA
    assert "no proposal of 'mine' for 2023-06-30 is approved" in waiting.sentence
    decide(deployment.database, first.proposal_id, "os:somebody", "approve", "", NOW)
    done = execute_session(deployment, "mine", FORM, SESSION)
    assert done.orders.schema == EXECUTIONS_SCHEMA
    assert set(done.orders["proposal"]) == {first.proposal_id}
    assert set(done.orders["date"]) == {SESSION}
    asked = {order.symbol: (order.side, str(order.quantity)) for order in document.orders}
    assert {each["symbol"]: (each["side"], each["quantity"]) for each in done.orders.to_dicts()} == asked
    assert execute_session(deployment, "mine", FORM, SESSION).orders.equals(done.orders)


def test_a_flattening_adds_to_what_the_session_executed_and_overwrites_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimulatedVenue, "opens", lambda *_: {"A": Decimal(10), "B": Decimal(10)})
    store()
    deployment = Deployment()
    rebalance = str(propose().proposal_id)
    decide(deployment.database, rebalance, "os:somebody", "approve", "", NOW)
    first = execute_session(deployment, "mine", FORM, SESSION).orders
    flattening = flatten_account(deployment, "paper", "os:me", "now", lambda: {"mine": FORM})
    # Undecided, it changes nothing.
    assert execute_session(deployment, "mine", FORM, SESSION).orders.equals(first)
    decide(deployment.database, flattening, "os:somebody", "approve", "", NOW)
    both = execute_session(deployment, "mine", FORM, SESSION).orders
    assert both.schema == EXECUTIONS_SCHEMA
    assert both.head(first.height).equals(first)
    closed = both.filter(pl.col("proposal") == flattening)
    assert both.height == first.height + closed.height
    assert {row["symbol"]: (row["side"], row["filled"]) for row in closed.to_dicts()} == {
        row["symbol"]: ({"buy": "sell", "short": "cover"}[row["side"]], row["filled"]) for row in first.to_dicts()
    }
    assert execute_session(deployment, "mine", FORM, SESSION).orders.equals(both)


def test_a_thinly_traded_stock_is_bought_no_more_of_than_its_share_of_the_volume() -> None:
    # A tenth of 15,000: less than the 1,960 shares that the plan asks for, and the short side shrinks alike.
    store([row("A", ago(back), volume=15_000.0) for back in range(21)])
    outcome = propose()
    assert "lets it open 1500 of 1960 shares of A, whose mean daily volume is 15000" in outcome.sentence
    document = load(Deployment().database, str(outcome.proposal_id)).document
    assert {order.symbol: order.quantity for order in document.orders} == {"A": Decimal(1_500), "B": Decimal(1_500)}
    assert document.volumes == {"A": Decimal(15_000), "B": Decimal(1_000_000)}


def test_figures_of_the_ledger_are_kept_exactly_and_no_fill_has_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = (
        ExecutedOrder("A", "buy", "open", Decimal(100), "filled", Decimal(100), Decimal("10.123456"), ""),
        ExecutedOrder("B", "short", "open", Decimal(7), "rejected", Decimal(0), None, "outside its collar"),
    )
    report = ExecutionReport("p1", "finished", "1 of 2 orders filled", orders)
    monkeypatch.setattr(account_orders, "execute_approved", lambda *_: report)
    outcome = execute_session(Deployment(), "mine", FORM, SESSION)
    assert outcome.sentence == report.message
    assert outcome.orders.select("symbol", "quantity", "filled", "price", "status").rows() == [
        ("A", "100", "100", "10.123456", "filled"),
        ("B", "7", "0", None, "rejected"),
    ]
