"""Partitions: trading days without weekends and holidays, and models under the keys that the split knows."""

from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import exchange_calendars
import pytest

from stockpicker_dagster.components.partitions import looking_back, model_periods, serving_model, trading_days
from stockpicker_dagster.research.splits import walk_forward_periods
from stockpicker_dagster_tests.components.forms import FIXED, strategy_form

NOW = datetime(2024, 3, 9, 12, tzinfo=UTC)


def test_trading_days_are_the_exchanges_own_sessions() -> None:
    keys = trading_days(date(2012, 1, 3)).get_partition_keys(current_time=NOW)
    calendar = exchange_calendars.get_calendar("XNYS", start="2012-01-01")
    assert keys == [str(day.date()) for day in calendar.sessions_in_range("2012-01-03", "2024-03-08")]
    # A storm, a state funeral and Christmas.
    assert not {"2012-10-29", "2018-12-05", "2023-12-25"} & set(keys)


@pytest.mark.parametrize(
    ("moment", "newest"),
    [
        (datetime(2024, 1, 5, 23, 59, tzinfo=UTC), "2024-01-04"),
        (datetime(2024, 1, 6, 0, 0, tzinfo=UTC), "2024-01-05"),  # 19:00 EST
        (datetime(2024, 1, 7, 12, 0, tzinfo=UTC), "2024-01-05"),
        (datetime(2024, 7, 4, 0, 0, tzinfo=UTC), "2024-07-03"),  # 20:00 EDT
        (datetime(2024, 7, 5, 12, 0, tzinfo=UTC), "2024-07-03"),
    ],
)
def test_a_day_opens_in_the_evening_after_its_close_and_friday_does_not_wait_for_monday(
    moment: datetime, newest: str
) -> None:
    assert trading_days(date(2023, 1, 3)).get_partition_keys(current_time=moment)[-1] == newest


@pytest.mark.parametrize(
    ("exchange", "moment", "newest"),
    [
        ("XLON", datetime(2024, 7, 5, 18, 59, tzinfo=UTC), "2024-07-04"),
        ("XLON", datetime(2024, 7, 5, 19, 0, tzinfo=UTC), "2024-07-05"),  # 20:00 in summer
        ("XLON", datetime(2024, 1, 5, 19, 0, tzinfo=UTC), "2024-01-05"),  # 19:00 in winter
        ("XTKS", datetime(2024, 7, 5, 9, 59, tzinfo=UTC), "2024-07-04"),
        ("XTKS", datetime(2024, 7, 5, 10, 0, tzinfo=UTC), "2024-07-05"),  # 19:00, long before the next open
        ("XTKS", datetime(2024, 5, 6, 12, 0, tzinfo=UTC), "2024-05-02"),  # Golden Week
    ],
)
def test_days_of_another_exchange_open_after_its_own_close(exchange: str, moment: datetime, newest: str) -> None:
    days = trading_days(date(2023, 1, 4), exchange)
    assert days.get_partition_keys(current_time=moment)[-1] == newest
    calendar = exchange_calendars.get_calendar(exchange, start="2023-01-01")
    assert days.get_partition_keys(current_time=moment) == [
        str(day.date()) for day in calendar.sessions_in_range("2023-01-04", newest)
    ]


def test_days_of_new_york_are_those_that_they_always_were() -> None:
    """Another time zone or order of exclusions would make Dagster forget what it has stored."""
    days = trading_days(date(2050, 11, 1))
    holidays = [datetime(2050, 11, 24, tzinfo=UTC), datetime(2050, 12, 26, tzinfo=UTC)]
    assert days == dg.DailyPartitionsDefinition(
        "2050-11-01", timezone="UTC", exclusions=["0 0 * * 0", "0 0 * * 6", *holidays]
    )


def test_strategies_on_two_exchanges_have_days_and_models_of_their_own(tmp_path: Path) -> None:
    files = {"source": "files", "path": str(tmp_path / "p.csv"), "basis": "as_traded"}
    prices = {"name": "tokyo", "calendar": "XTKS", "start": date(2018, 1, 4), **files}
    tokyo = strategy_form(prices=prices, universe={"symbols": ["7203", "6758"]})
    new_york = strategy_form()
    golden_week, independence = date(2024, 5, 3), date(2024, 7, 4)
    assert [form.calendar.is_session(golden_week) for form in (tokyo, new_york)] == [False, True]
    assert [form.calendar.is_session(independence) for form in (tokyo, new_york)] == [True, False]
    periods, days = model_periods(tokyo), trading_days(tokyo.prices.start, tokyo.prices.calendar)
    assert periods is not None
    for day in ("2022-01-04", "2022-03-31", "2022-04-01", "2024-03-08"):
        mapped = serving_model().get_upstream_mapped_partitions_result_for_partitions(
            days.empty_subset().with_partition_keys([day]), days, periods, current_time=NOW
        )
        assert list(mapped.partitions_subset.get_partition_keys()) == [tokyo.period_key(date.fromisoformat(day))]


def test_every_daily_asset_of_a_source_shares_one_definition() -> None:
    assert trading_days(date(2023, 1, 3)) is trading_days(date(2023, 1, 3))


@pytest.mark.parametrize("retrain", ["weekly", "monthly", "quarterly", "yearly"])
def test_models_have_the_keys_of_the_periods_they_serve(retrain: str) -> None:
    form = strategy_form(periods={"train_years": 1, "validation_years": 1, "retrain": retrain})
    assert form.periods.retrain is not None
    periods = model_periods(form)
    assert periods is not None
    expected = walk_forward_periods(form.first_served, NOW.date(), form.periods.retrain)
    assert periods.get_partition_keys(current_time=NOW) == [period.key for period in expected]
    assert expected[0].serves_from == form.first_served
    assert expected[-1].serves_from <= NOW.date() <= expected[-1].serves_until


def test_fixed_periods_have_one_model_without_a_partition() -> None:
    assert model_periods(strategy_form(prices={"start": date(2020, 1, 2)}, periods=FIXED)) is None


def test_a_day_is_served_by_the_model_whose_period_it_lies_in_and_by_none_before_the_first() -> None:
    form = strategy_form()
    periods, days = model_periods(form), trading_days(form.prices.start)
    assert periods is not None

    def models(day: str) -> list[str]:
        mapped = serving_model().get_upstream_mapped_partitions_result_for_partitions(
            days.empty_subset().with_partition_keys([day]), days, periods, current_time=NOW
        )
        return sorted(mapped.partitions_subset.get_partition_keys())

    for day in ("2022-01-03", "2022-03-31", "2022-04-01", "2024-03-08"):
        assert models(day) == [form.period_key(date.fromisoformat(day))]
    assert models("2019-01-03") == []


def test_looking_back_counts_sessions_and_ends_at_the_start_of_the_source() -> None:
    days = trading_days(date(2024, 1, 2))

    def needed(day: str, sessions: int) -> list[str]:
        mapped = looking_back(sessions).get_upstream_mapped_partitions_result_for_partitions(
            days.empty_subset().with_partition_keys([day]), days, days, current_time=NOW
        )
        return sorted(mapped.partitions_subset.get_partition_keys())

    assert needed("2024-01-16", 2) == ["2024-01-11", "2024-01-12", "2024-01-16"]  # over Martin Luther King's day
    assert needed("2024-01-03", 500) == ["2024-01-02", "2024-01-03"]
