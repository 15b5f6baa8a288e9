"""When a strategy's assets run: its jobs, its schedules, and the sensor that follows a person's decision.

Every tick is a convenience. That a session is handled once is ensured by the stored partitions, and that orders are
sent once by the ledger, never by a run key.
"""

from collections.abc import Iterator
from datetime import date, datetime
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from stockpicker_dagster.components.partitions import model_periods
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.research.splits import period_of
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.strategy_form import CALENDAR, StrategyForm
from stockpicker_dagster.trading.approval import Outcome, outcomes_after

_NEW_YORK = "America/New_York"
_DAILY_CRON = "15 20 * * *"
"""Quarter past eight in the evening: the day's partition has opened, in winter and in summer time."""
_TRAINING_CRON = "0 5 * * *"
"""Early in the morning, hours before the evening's scores need the model of a period that begins with the day."""


def strategy_runs(name: str, form: StrategyForm) -> dg.Definitions:
    """Jobs, schedules and the approval sensor of one strategy; all of them run by default."""
    daily = dg.define_asset_job(
        f"{name}_daily",
        selection=dg.AssetSelection.assets(
            [form.prices.key, "prices"],
            [form.prices.key, form.features.set, "features"],
            *([name, asset] for asset in ("scaled_features", "predictions", "backtest_metrics", "rebalance_orders")),
        ),
        description=f"Everything that {name!r} needs of one session, from prices to the proposed rebalance.",
    )
    training = dg.define_asset_job(
        f"{name}_training",
        selection=dg.AssetSelection.assets([name, "datasets"], [name, "trained_model"]),
        description=f"The dataset and the model of one period of {name!r}.",
    )
    execution = dg.define_asset_job(
        f"{name}_execution",
        selection=dg.AssetSelection.assets([name, "executions"]),
        description=f"Executes what a person approved of {name!r}; without an approval it sends nothing.",
    )
    schedules = [_daily_schedule(name, form, daily)]
    if model_periods(form) is not None:
        schedules.append(_training_schedule(name, form, training))
    return dg.Definitions(
        jobs=[daily, training, execution],
        schedules=schedules,
        sensors=[_approval_sensor(name, form, execution)],
    )


def _new_york_day(moment: datetime) -> date:
    """The day in New York: the UTC date of the evening tick is already the next one, which would skip Fridays."""
    return moment.astimezone(ZoneInfo(_NEW_YORK)).date()


def _no_run(form: StrategyForm, day: date) -> str | None:
    """Why nothing can run on `day`; None if it can."""
    if not trading_calendar(CALENDAR).is_session(day):
        return f"{day} is no trading session"
    if missing := form.missing_files():
        return f"not there: {', '.join(map(str, missing))}; put it there, or change the path in the strategy"
    return None


def _daily_schedule(name: str, form: StrategyForm, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{name}_daily",
        job=job,
        cron_schedule=_DAILY_CRON,
        execution_timezone=_NEW_YORK,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = _new_york_day(context.scheduled_execution_time)
        if reason := _no_run(form, day):
            return dg.SkipReason(reason)
        return dg.RunRequest(run_key=day.isoformat(), partition_key=day.isoformat())

    return daily


def _training_schedule(name: str, form: StrategyForm, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{name}_training",
        job=job,
        cron_schedule=_TRAINING_CRON,
        execution_timezone=_NEW_YORK,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def training(context: dg.ScheduleEvaluationContext, deployment: Deployment) -> dg.RunRequest | dg.SkipReason:
        day = _new_york_day(context.scheduled_execution_time)
        if reason := _no_run(form, day):
            return dg.SkipReason(reason)
        assert form.periods.retrain is not None
        period = period_of(day, form.periods.retrain)
        if period.serves_from < form.first_served:
            return dg.SkipReason(f"the first model serves from {form.first_served}: there is too little history before")
        if period.key in deployment.lake.bundles(f"{name}/trained_model"):
            return dg.SkipReason(f"the model of {period.key} is trained")
        # Asked for again every morning until it is there: a missed tick or a failed run must not end the scores.
        return dg.RunRequest(run_key=f"{period.key} on {day}", partition_key=period.key)

    return training


def _approval_sensor(name: str, form: StrategyForm, job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    approval = dg.AssetKey([name, "rebalance_approval"])

    @dg.sensor(
        name=f"{name}_approval",
        job=job,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Records decisions for lineage and asks for the execution of approved ones.",
    )
    def follow_decisions(
        context: dg.SensorEvaluationContext, deployment: Deployment
    ) -> dg.SensorResult | dg.SkipReason:
        # Asset events are not deduplicated by Dagster: only outcomes past the cursor are reported.
        outcomes = outcomes_after(deployment.database, int(context.cursor or 0))
        if not outcomes:
            return dg.SkipReason("no decision since the last look")
        own = [outcome for outcome in outcomes if outcome.strategy == name]
        return dg.SensorResult(
            run_requests=list(_execution_requests(own)),
            asset_events=[_decision_event(approval, outcome) for outcome in own],
            cursor=str(outcomes[-1].sequence),
        )

    return follow_decisions


def _execution_requests(outcomes: list[Outcome]) -> Iterator[dg.RunRequest]:
    for outcome in outcomes:
        if outcome.outcome == "approved":
            yield dg.RunRequest(run_key=outcome.digest, partition_key=outcome.session.isoformat())


def _decision_event(key: dg.AssetKey, outcome: Outcome) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        key,
        partition=outcome.session.isoformat(),
        metadata={"proposal": outcome.proposal, "outcome": outcome.outcome, "detail": outcome.detail},
    )
