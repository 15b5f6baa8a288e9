"""From the last plan to fills: only what a person approved in the ledger is sent, once, whatever Dagster is told."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl
import pytest
from dagster._core.test_utils import freeze_time
from sqlalchemy import select

from stockpicker_dagster import runs
from stockpicker_dagster.components.origins import day_prices, origin
from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.home import prepare_home
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.approval import decide
from stockpicker_dagster.trading.audit import why_held
from stockpicker_dagster.trading.desk import reconcile_account
from stockpicker_dagster.trading.proposal import StoredProposal, load, open_proposals
from stockpicker_dagster.trading.shortfall import shortfall
from stockpicker_dagster_tests.system.pipelines import CALENDAR, END, QUIET, START, TEST, Pipeline, stored_files

pytestmark = pytest.mark.xdist_group("pipelines")

ACCOUNT = "paper"


class Desk:
    """A pipeline with its ledger, as a person at it sees them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.deployment = Deployment()

    def open_proposal(self) -> StoredProposal | None:
        return next(iter(open_proposals(self.deployment.database)), None)

    def decide(self, decision: str) -> StoredProposal:
        proposal = self.open_proposal()
        assert proposal is not None
        decide(self.deployment.database, proposal.id, "os:somebody", decision, "a test", self.deployment.now())  # type: ignore[arg-type]
        return load(self.deployment.database, proposal.id)

    def execute(self, session: date = END, **arguments: object) -> pl.DataFrame:
        self.pipeline.materialize(["invented/executions"], session, **arguments)  # type: ignore[arg-type]
        return self.pipeline.lake.read("invented/executions", [session])

    def rows(self, table: str) -> list[dict[str, object]]:
        with self.deployment.database.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(select(ledger.metadata.tables[table]))]

    def positions(self) -> dict[str, Decimal]:
        with self.deployment.database.connect() as connection:
            return ledger.held_quantities(connection, ACCOUNT)

    def sent(self) -> int:
        return len(self.rows("order_intents")) + len(self.rows("fills"))

    def state(self, proposal: StoredProposal) -> str:
        return load(self.deployment.database, proposal.id).state

    def next_session(self, session: date) -> None:
        self.pipeline.materialize((*self.pipeline.collecting, *self.pipeline.serving), session)


@pytest.fixture
def desk(simulated_run: Pipeline, tmp_path: Path) -> Iterator[Desk]:
    """The simulated strategy with the proposal of `END` open."""
    pipeline = simulated_run.copied_to(tmp_path / "home")
    with pipeline.at_home():
        yield Desk(pipeline)


def _opens(desk: Desk, session: date, symbols: list[str]) -> dict[str, Decimal]:
    opens = desk.pipeline.form.prices.build().venue().opens(session, symbols)
    assert opens is not None
    return opens


def test_only_the_latest_session_is_proposed(desk: Desk) -> None:
    proposals = desk.rows("proposals")
    assert [(row["strategy"], row["session"]) for row in proposals] == [("invented", END)]
    proposal = desk.open_proposal()
    assert proposal is not None
    document = proposal.document
    plan = desk.pipeline.lake.read("invented/rebalance_orders", [END])
    assert {symbol: float(weight) for symbol, weight in document.targets.items()} == dict(
        plan.select("symbol", "target_weight").iter_rows()
    )
    assert document.trade_session == CALENDAR.next_session(END)
    assert document.expires_at - document.created_at == timedelta(hours=24)
    assert document.venue_simulated
    traded = desk.pipeline.lake.read("simulated/prices", CALENDAR.sessions(START, END)[-20:])
    for order in document.orders:
        shares, split = 0.0, 1.0
        for row in traded.filter(pl.col("symbol") == order.symbol).sort("date", descending=True).iter_rows(named=True):
            shares, split = shares + row["volume"] * split, split * row["split_ratio"]
        assert abs(float(document.volumes[order.symbol]) - shares / 20) <= 1
        assert order.quantity <= document.limits.volume_share * document.volumes[order.symbol]
    model = desk.pipeline.lake.read("invented/predictions", [END])["model_id"].unique().to_list()
    assert [document.model_id] == model


def test_running_history_again_proposes_nothing(desk: Desk) -> None:
    before = desk.rows("proposals")
    desk.pipeline.serve(TEST[0], date(2023, 1, 20))
    assert desk.rows("proposals") == before


def test_what_is_held_leads_back_to_prediction_model_and_the_runs_that_made_them(
    desk: Desk, simulated_run: Pipeline
) -> None:
    proposal = desk.decide("approve")
    desk.execute()
    symbol = next(iter(desk.positions()))
    held = why_held(desk.deployment.database, ACCOUNT, symbol)
    [found] = held.proposals
    assert held.adds_up
    assert (found.id, found.strategy, found.session) == (proposal.id, "invented", END)
    form, lake = desk.pipeline.form, desk.pipeline.lake
    # The copy has executed; whatever came before was run where it was copied from.
    ran = simulated_run.instance
    behind = origin(lake, ran, found.strategy, form, found.session, symbol, found.model_id)
    made = {each.asset: each for each in behind.made_by}
    assert found.run == made["invented/rebalance_orders"].run
    for each in behind.made_by:
        if each.asset == "invented/executions":
            assert each.run is None
        else:
            assert each.run is not None, each
            assert ran.get_run_by_id(each.run) is not None
    executed = origin(lake, desk.pipeline.instance, found.strategy, form, found.session, symbol, found.model_id)
    assert {each.asset for each in executed.made_by if each.run} == {"invented/executions"}
    predicted = lake.read("invented/predictions", [END]).filter(pl.col("symbol") == symbol).row(0, named=True)
    assert (behind.score, behind.rank) == (predicted["score"], predicted["rank"])
    assert [name for name, _ in behind.contributions] == [each["feature"] for each in predicted["contributions"]]
    assert behind.model is not None
    assert behind.model.same
    assert behind.model.data_version == found.data_version
    assert (made["invented/rebalance_orders"].partition, made["invented/executions"].partition) == (str(END), str(END))
    assert date.fromisoformat(behind.model.last_known) < END


def test_the_shortfall_is_known_once_the_session_traded_in_is_stored(desk: Desk) -> None:
    proposal = desk.decide("approve")
    desk.execute()
    document = load(desk.deployment.database, proposal.id).document
    names = [order.symbol for order in document.orders]
    assert day_prices(desk.pipeline.lake, desk.pipeline.form, document.trade_session, names) is None
    desk.next_session(document.trade_session)
    prices = day_prices(desk.pipeline.lake, desk.pipeline.form, document.trade_session, names)
    assert prices is not None
    measured = shortfall(desk.deployment.database, proposal.id, prices)
    filled = [order for order in measured.orders if order.filled == order.quantity]
    assert len(filled) > 10
    for order in filled:
        # On paper a trade pays half a spread of 5 bps against the open, which is what trading costs here.
        assert order.arrival is not None
        assert order.trading is not None
        assert abs(order.trading / (order.filled * order.arrival) - Decimal("0.00025")) < Decimal("1e-7")
        assert order.opportunity == 0


def test_an_approved_proposal_fills_exactly_at_the_withheld_open(desk: Desk) -> None:
    proposal = desk.decide("approve")
    assert desk.sent() == 0
    orders = desk.execute()
    asked = {order.symbol: (order.side, order.quantity) for order in proposal.document.orders}
    assert {row["symbol"]: (row["side"], Decimal(row["quantity"])) for row in orders.to_dicts()} == asked
    opens = _opens(desk, CALENDAR.next_session(END), sorted(asked))
    filled = orders.filter(pl.col("status") == "filled")
    assert filled.height == len(opens) > 10
    for row in filled.iter_rows(named=True):
        # Half of the spread of 5 bps goes against the order, rounded to a millionth.
        against = Decimal("0.00025") * (1 if row["side"] in ("buy", "cover") else -1)
        assert abs(Decimal(row["price"]) - opens[row["symbol"]] * (1 + against)) < Decimal("0.00001")
    signed = {s: q if side in ("buy", "cover") else -q for s, (side, q) in asked.items() if s in opens}
    assert desk.positions() == signed
    assert desk.state(proposal) == "executed"
    assert reconcile_account(desk.deployment.database, ACCOUNT, desk.deployment.now()).agrees


def test_executing_again_sends_nothing_more(desk: Desk) -> None:
    desk.decide("approve")
    first = desk.execute()
    sent, files = desk.sent(), stored_files(desk.pipeline.lake)
    assert sent > 0
    assert desk.execute().equals(first)
    assert desk.sent() == sent
    assert stored_files(desk.pipeline.lake) == files


def test_without_an_approval_nothing_is_sent(desk: Desk) -> None:
    assert desk.execute().is_empty()
    assert desk.sent() == 0
    assert desk.open_proposal() is not None


def test_a_denied_proposal_is_never_sent(desk: Desk) -> None:
    proposal = desk.decide("deny")
    assert desk.execute().is_empty()
    assert desk.sent() == 0
    assert desk.state(proposal) == "denied"
    desk.pipeline.serve(END)
    assert desk.open_proposal() is None
    assert len(desk.rows("proposals")) == 1


def test_a_forged_approval_event_sends_nothing(desk: Desk) -> None:
    proposal = desk.open_proposal()
    assert proposal is not None
    event = dg.AssetMaterialization(
        ["invented", "rebalance_approval"],
        partition=str(END),
        metadata={"proposal": proposal.id, "outcome": "approved", "detail": "os:somebody"},
    )
    desk.pipeline.instance.report_runless_asset_event(event)
    assert desk.execute().is_empty()
    assert desk.sent() == 0


def test_a_changed_run_config_cannot_redirect_or_force_an_execution(desk: Desk, tmp_path: Path) -> None:
    elsewhere = str(tmp_path / "elsewhere")
    for resource, config in (
        ("deployment", {"database_url": f"sqlite:///{elsewhere}"}),
        ("io_manager", {"root": elsewhere}),
    ):
        with pytest.raises(dg.DagsterInvalidConfigError, match="unexpected config entry"):
            desk.execute(run_config={**QUIET, "resources": {resource: {"config": config}}})
    assert not Path(elsewhere).exists()
    # An asset without configuration takes any, and reads none of it.
    forged = {"approved": True, "proposal": "000000000000"}
    assert desk.execute(run_config={**QUIET, "ops": {"invented__executions": {"config": forged}}}).is_empty()
    assert desk.sent() == 0


def test_a_replayed_run_sends_nothing_more(desk: Desk) -> None:
    """The run that executed an approved proposal is started once more as it was, as the pages offer."""
    desk.decide("approve")
    desk.execute()
    sent, positions = desk.sent(), desk.positions()
    earlier = desk.pipeline.instance.get_runs(limit=1)[0]
    again = desk.pipeline.job.execute_in_process(
        instance=desk.pipeline.instance,
        asset_selection=list(earlier.asset_selection or ()),
        tags=dict(earlier.tags),
        run_config=dict(earlier.run_config),
    )
    assert again.success
    assert (desk.sent(), desk.positions()) == (sent, positions)


def test_the_next_session_supersedes_what_nobody_decided(desk: Desk) -> None:
    earlier = desk.open_proposal()
    assert earlier is not None
    following = CALENDAR.next_session(END)
    desk.next_session(following)
    later = desk.open_proposal()
    assert later is not None
    assert later.document.session == following
    assert desk.state(earlier) == "superseded"
    with pytest.raises(StockPickerError, match="already superseded"):
        decide(desk.deployment.database, earlier.id, "os:somebody", "approve", "", desk.deployment.now())
    assert desk.execute().is_empty()
    assert desk.sent() == 0


def test_corporate_actions_are_booked_and_positions_add_up_session_after_session(desk: Desk) -> None:
    desk.decide("approve")
    desk.execute(END)
    held = desk.positions()
    source, ahead = desk.pipeline.form.prices.build(), CALENDAR.sessions(CALENDAR.next_session(END), TEST[1])
    # The run ends with the first dividend on a stock held since an earlier session.
    last = source.fetch(list(held), ahead[1:]).prices.filter(pl.col("dividend") > 0)["date"][0]
    days = CALENDAR.sessions(ahead[0], last)
    desk.pipeline.materialize((*desk.pipeline.collecting, *desk.pipeline.serving), days[0], last)

    prices = desk.pipeline.lake.read(desk.pipeline.prices, days)
    dividends = prices.filter((pl.col("dividend") > 0) & pl.col("symbol").is_in(list(held)))
    booked = {(row["symbol"], row["session"]): row for row in desk.rows("corporate_actions") if row["kind"] != "borrow"}
    # Shorts that were there overnight pay their borrow fee, half a per cent a year of the close before.
    fees = {(row["symbol"], row["session"]): row for row in desk.rows("corporate_actions") if row["kind"] == "borrow"}
    short = [symbol for symbol, quantity in held.items() if quantity < 0]
    assert {symbol for symbol, day in fees if day == days[1]} == {*short}
    assert not [day for _, day in fees if day == days[0]]
    closes = dict(prices.filter(pl.col("date") == days[0]).select("symbol", "close").iter_rows())
    nights = (days[1] - days[0]).days
    for symbol in short:
        cash = fees[symbol, days[1]]["cash"]
        assert isinstance(cash, Decimal)
        assert abs(float(cash) - float(held[symbol]) * closes[symbol] * 0.005 * nights / 365) < 0.0001
    # Whoever buys at the open of the ex-date gets no dividend of that day.
    too_late, due = dividends.filter(pl.col("date") == days[0]), dividends.filter(pl.col("date") > days[0])
    assert too_late.height > 0
    assert due["date"].to_list() == [last] * due.height != []
    assert not [row for row in too_late.iter_rows(named=True) if (row["symbol"], row["date"]) in booked]
    for row in due.iter_rows(named=True):
        expected = held[row["symbol"]] * Decimal(str(row["dividend"]))
        cash = booked[row["symbol"], row["date"]]["cash"]
        assert isinstance(cash, Decimal)
        assert abs(cash - expected) < Decimal("0.01")
    proposal = desk.open_proposal()
    assert proposal is not None
    assert proposal.document.session == last
    assert dict(proposal.document.holdings) == desk.positions()

    desk.decide("approve")
    desk.execute(last)
    assert reconcile_account(desk.deployment.database, ACCOUNT, desk.deployment.now()).agrees
    fills, changes = desk.rows("fills"), desk.rows("corporate_actions")
    total: dict[str, Decimal] = {}
    for rows, column in ((fills, "quantity"), (changes, "quantity_change")):
        for row in rows:
            total[str(row["symbol"])] = total.get(str(row["symbol"]), Decimal(0)) + Decimal(str(row[column]))
    assert {symbol: amount for symbol, amount in total.items() if amount} == desk.positions()


# The clock


@pytest.mark.parametrize(
    "moment",
    [datetime(2022, 12, 27, 11, 0), datetime(2022, 12, 24, 15, 0), datetime(2022, 12, 26, 12, 0)],
    ids=["Tuesday 11:00", "Saturday", "holiday"],
)
def test_a_run_at_any_hour_proposes_for_24_hours_and_fills_at_the_next_open(
    moment: datetime,
    simulated_run: Pipeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Before Tuesday's close, over the weekend and on the holiday observed on Monday, the last completed session is
    # Friday's; the simulated open of Tuesday is withheld.
    last, filled_on = date(2022, 12, 23), date(2022, 12, 27)
    now = moment.replace(tzinfo=ZoneInfo("America/New_York")).astimezone(UTC)
    pipeline = Pipeline(tmp_path / "home", simulated_run.forms)
    monkeypatch.setattr(Deployment, "now", lambda _: now)
    monkeypatch.setattr(runs, "_job", lambda: pipeline.job)
    # Both are set while preparing the state folder; named here, they are put back at the end.
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "compiled"))
    with pipeline.at_home(), freeze_time(now):
        prepare_home(announce=False)
        deployment = Deployment()
        span = runs.span_to_run(pipeline.name, pipeline.form, deployment, None, None)
        assert (span.first, span.last) == (START, last)
        lines: list[str] = []
        runs.run_strategy(pipeline.name, pipeline.form, deployment, span, lines.append)
        desk = Desk(pipeline)
        proposal = desk.open_proposal()
        assert proposal is not None
        assert proposal.document.session == last
        assert proposal.document.expires_at == now + timedelta(hours=24)
        assert pipeline.lake.days(pipeline.prices)[-1] == last

        monkeypatch.setattr(Deployment, "now", lambda _: now + timedelta(hours=23, minutes=59))
        desk.decide("approve")
        runs.execute_approved_session(pipeline.name, last, lines.append)
        fills = desk.rows("fills")
        assert fills
        assert {row["session"] for row in fills} == {filled_on}
        assert pipeline.lake.days(pipeline.prices)[-1] == last
