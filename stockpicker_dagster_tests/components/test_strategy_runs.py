"""When a strategy runs: each session once, in the evening in New York, and nothing that cannot run."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from stockpicker_dagster.components import strategy_runs as runs_file
from stockpicker_dagster.components.partitions import trading_days
from stockpicker_dagster.components.strategy_runs import strategy_runs
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.lake import Bundle
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.trading.approval import Outcome
from stockpicker_dagster_tests.components.forms import FIXED, strategy_form

NEW_YORK = ZoneInfo("America/New_York")
FORM = strategy_form()


def tick(form: StrategyForm, schedule: str, moment: datetime) -> dg.RunRequest | dg.SkipReason:
    """What the schedule asks for at that moment."""
    [found] = [each for each in strategy_runs("mine", form).schedules or [] if each.name == f"mine_{schedule}"]
    context = dg.build_schedule_context(
        scheduled_execution_time=moment.astimezone(UTC), resources={"deployment": Deployment()}
    )
    result = found(context)
    assert isinstance(result, dg.RunRequest | dg.SkipReason)
    return result


def evening(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 20, 15, tzinfo=NEW_YORK)


def morning(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 5, 0, tzinfo=NEW_YORK)


@pytest.mark.parametrize(
    "day",
    [date(2024, 1, 5), date(2024, 7, 5), date(2024, 3, 11), date(2024, 11, 4)],
    ids=["friday_est", "friday_edt", "after_clocks_went_forward", "after_clocks_went_back"],
)
def test_the_evening_of_a_session_asks_for_that_session_which_has_opened(day: date) -> None:
    request = tick(FORM, "daily", evening(day))
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == request.run_key == str(day)
    assert FORM.calendar.is_session(day)
    opens = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + 86_400
    assert evening(day).timestamp() >= opens


@pytest.mark.parametrize("day", [date(2024, 1, 5), date(2024, 7, 5)], ids=["winter", "summer"])
@pytest.mark.parametrize(
    ("exchange", "zone", "hour", "minute"),
    [("XLON", "Europe/London", 20, 45), ("XTKS", "Asia/Tokyo", 19, 45), ("XASX", "Australia/Sydney", 21, 15)],
)
def test_another_exchange_is_collected_in_its_own_evening(
    exchange: str, zone: str, hour: int, minute: int, day: date, tmp_path: Path
) -> None:
    path = tmp_path / "p.csv"
    path.touch()
    prices = {
        "source": "files",
        "path": str(path),
        "basis": "as_traded",
        "calendar": exchange,
        "start": date(2018, 1, 4),
    }
    form = strategy_form(prices=prices, universe={"symbols": ["A", "B"]})
    [daily, training] = strategy_runs("mine", form).schedules or []
    assert (daily.cron_schedule, daily.execution_timezone) == (f"{minute} {hour} * * *", zone)
    assert training.execution_timezone == zone
    due = datetime(day.year, day.month, day.day, hour, minute, tzinfo=ZoneInfo(zone))
    request = tick(form, "daily", due)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == str(day)
    days = trading_days(form.prices.start, form.prices.calendar)
    assert days.get_partition_keys(current_time=due)[-1] == str(day)


@pytest.mark.parametrize("day", [date(2024, 1, 6), date(2024, 1, 7), date(2024, 7, 4)])
def test_weekends_and_holidays_are_skipped_by_name(day: date) -> None:
    for schedule, moment in (("daily", evening(day)), ("training", morning(day))):
        skipped = tick(FORM, schedule, moment)
        assert isinstance(skipped, dg.SkipReason)
        assert skipped.skip_message == f"{day} is no trading session"


def test_a_missing_file_is_skipped_naming_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    prices = {"source": "files", "path": "p.csv", "basis": "as_traded", "start": date(2018, 1, 2)}
    form = strategy_form(prices=prices, universe={"symbols": ["A", "B"]})
    skipped = tick(form, "daily", evening(date(2024, 1, 5)))
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == f"not there: {tmp_path / 'p.csv'}; put it there, or change the path in the strategy"
    (tmp_path / "p.csv").touch()
    assert isinstance(tick(form, "daily", evening(date(2024, 1, 5))), dg.RunRequest)


def test_a_model_is_asked_for_every_morning_of_its_period_until_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    first = tick(FORM, "training", morning(date(2024, 4, 1)))
    again = tick(FORM, "training", morning(date(2024, 4, 2)))
    assert isinstance(first, dg.RunRequest)
    assert isinstance(again, dg.RunRequest)
    assert first.partition_key == again.partition_key == "2024-04-01"
    assert first.run_key != again.run_key
    Deployment().lake.write_bundle("mine/trained_model", "2024-04-01", Bundle({"model.json": b"{}"}))
    trained = tick(FORM, "training", morning(date(2024, 4, 3)))
    assert isinstance(trained, dg.SkipReason)
    assert trained.skip_message == "the model of 2024-04-01 is trained"
    january = tick(FORM, "training", morning(date(2024, 1, 2)))
    assert isinstance(january, dg.RunRequest)
    assert january.partition_key == "2024-01-01"


def test_no_model_is_trained_before_there_is_history_for_it() -> None:
    assert FORM.first_served == date(2021, 4, 1)
    early = tick(FORM, "training", morning(date(2020, 10, 1)))
    assert isinstance(early, dg.SkipReason)
    assert "the first model serves from 2021-04-01" in (early.skip_message or "")


def test_everything_runs_by_default_and_fixed_periods_have_no_training_schedule() -> None:
    definitions = strategy_runs("mine", FORM)
    schedules = list(definitions.schedules or [])
    assert [each.name for each in schedules] == ["mine_daily", "mine_training"]
    assert {each.default_status for each in schedules} == {dg.DefaultScheduleStatus.RUNNING}
    assert {each.execution_timezone for each in schedules} == {"America/New_York"}
    [sensor] = definitions.sensors or []
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    fixed = strategy_runs("mine", strategy_form(prices={"start": date(2020, 1, 2)}, periods=FIXED))
    assert [each.name for each in fixed.schedules or []] == ["mine_daily"]


def outcome(sequence: int, strategy: str = "mine", decided: str = "approved") -> Outcome:
    return Outcome(
        sequence=sequence,
        proposal=f"p{sequence}",
        digest=f"d{sequence}",
        account="paper",
        strategy=strategy,
        session=date(2024, 1, sequence + 1),
        outcome=decided,  # type: ignore[arg-type]
        detail="fine",
        recorded_at=datetime(2024, 1, 6, tzinfo=UTC),
    )


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None, list[Outcome]], dg.SensorResult | dg.SkipReason]:
    """Evaluates the approval sensor at a cursor, given every outcome of the ledger."""
    monkeypatch.setattr(Deployment, "database", None)

    def evaluate(cursor: str | None, recorded: list[Outcome]) -> dg.SensorResult | dg.SkipReason:
        monkeypatch.setattr(
            runs_file, "outcomes_after", lambda database, last: [each for each in recorded if each.sequence > last]
        )
        [sensor] = strategy_runs("mine", FORM).sensors or []
        result = sensor(dg.build_sensor_context(cursor=cursor, resources={"deployment": Deployment()}))
        assert isinstance(result, dg.SensorResult | dg.SkipReason)
        return result

    return evaluate


Follow = Callable[[str | None, list[Outcome]], dg.SensorResult | dg.SkipReason]


def test_the_sensor_reports_each_decision_once_and_executes_approved_ones_alone(follow: Follow) -> None:
    recorded = [outcome(1), outcome(2, decided="denied"), outcome(3, strategy="other")]
    first = follow(None, recorded)
    assert isinstance(first, dg.SensorResult)
    assert [event.partition for event in first.asset_events] == ["2024-01-02", "2024-01-03"]
    assert {event.asset_key for event in first.asset_events} == {dg.AssetKey(["mine", "rebalance_approval"])}
    [request] = first.run_requests or []
    assert (request.run_key, request.partition_key) == ("d1", "2024-01-02")
    assert first.cursor == "3"
    assert isinstance(follow(first.cursor, recorded), dg.SkipReason)
    then = follow(first.cursor, [*recorded, outcome(4)])
    assert isinstance(then, dg.SensorResult)
    assert [event.partition for event in then.asset_events] == ["2024-01-05"]


def test_the_cursor_moves_past_decisions_of_other_strategies(follow: Follow) -> None:
    result = follow("1", [outcome(2, strategy="other")])
    assert isinstance(result, dg.SensorResult)
    assert (result.cursor, result.run_requests, result.asset_events) == ("2", [], [])
