"""The partitions of assets: trading days of a source, and the periods that a walk-forward strategy's models serve.

A trading day opens once it is complete, in New York at midnight UTC, the same evening; `TradingCalendar.daily_cycle`
says when elsewhere. A model's partition is named by the period it serves, so that a day maps to its model by lying
inside it.
"""

from datetime import date, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

import dagster as dg

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.strategy_form import StrategyForm

_CADENCES = {"weekly": "0 0 * * 1", "monthly": "0 0 1 * *", "quarterly": "0 0 1 */3 *", "yearly": "0 0 1 1 *"}


@lru_cache(maxsize=32)
def trading_days(start: date, exchange: str = "XNYS") -> dg.DailyPartitionsDefinition:
    """One partition a session from `start` on; weekends and the exchange's holidays are no partitions."""
    calendar = trading_calendar(exchange)
    zone = calendar.daily_cycle.complete_in
    holidays = calendar.weekday_holidays(start, calendar.last_day)
    return dg.DailyPartitionsDefinition(
        start_date=start.isoformat(),
        timezone=zone,
        exclusions=[
            "0 0 * * 0",
            "0 0 * * 6",
            *(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)) for day in holidays),
        ],
    )


def model_periods(form: StrategyForm) -> dg.TimeWindowPartitionsDefinition | None:
    """One partition for each period that a model serves, the running one included; None for fixed periods."""
    if form.periods.retrain is None:
        return None
    return dg.TimeWindowPartitionsDefinition(
        start=form.first_served.isoformat(),
        fmt="%Y-%m-%d",
        cron_schedule=_CADENCES[form.periods.retrain],
        # Days map to models only within one time zone.
        timezone=form.calendar.daily_cycle.complete_in,
        end_offset=1,
    )


def looking_back(sessions: int) -> dg.TimeWindowPartitionMapping:
    """The day itself and `sessions` before it, fewer at the start of the source."""
    return dg.TimeWindowPartitionMapping(start_offset=-sessions)


def serving_model() -> dg.TimeWindowPartitionMapping:
    """The model whose period the day lies in; none before the first period."""
    return dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)


def sessions_of(context: dg.AssetExecutionContext) -> list[date]:
    """The sessions that this run of a daily asset is for, ascending."""
    return [date.fromisoformat(key) for key in sorted(context.partition_keys)]
