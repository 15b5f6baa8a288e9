"""The partitions of assets: trading days of a source, and the periods that a walk-forward strategy's models serve.

A trading day opens at midnight UTC after its close, the same evening in New York. A model's partition is named by the
period it serves, so that a day maps to its model by lying inside it.
"""

from datetime import UTC, date, datetime
from functools import lru_cache

import dagster as dg

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.strategy_form import CALENDAR, StrategyForm

_CADENCES = {"weekly": "0 0 * * 1", "monthly": "0 0 1 * *", "quarterly": "0 0 1 */3 *", "yearly": "0 0 1 1 *"}


@lru_cache(maxsize=32)
def trading_days(start: date) -> dg.DailyPartitionsDefinition:
    """One partition a session from `start` on; weekends and the exchange's holidays are no partitions."""
    holidays = trading_calendar(CALENDAR).weekday_holidays(start, trading_calendar(CALENDAR).last_day)
    return dg.DailyPartitionsDefinition(
        start_date=start.isoformat(),
        timezone="UTC",
        exclusions=[
            "0 0 * * 0",
            "0 0 * * 6",
            *(datetime(day.year, day.month, day.day, tzinfo=UTC) for day in holidays),
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
        timezone="UTC",
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
