"""When a strategy's assets run: its jobs, its schedules, and the sensor that follows a person's decision.

Every tick is a convenience. That a session is handled once is ensured by the stored partitions, and that orders are
sent once by the ledger, never by a run key.
"""

from collections.abc import Iterator
from datetime import date
from zoneinfo import ZoneInfo

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from stockpicker_dagster.components.partitions import model_periods
from stockpicker_dagster.research.splits import period_of
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.trading.approval import Outcome, outcomes_after

_TRAINING_CRON = "0 5 * * *"
"""Early in the exchange's morning, hours before the evening's scores need the model of a period that begins with the
day."""


def strategy_runs(name: str, form: StrategyForm) -> dg.Definitions:
    """Jobs, schedules and the approval sensor of one strategy; all of them run by default."""
    daily = dg.define_asset_job(
        f"{name}_daily",
        selection=dg.AssetSelection.assets(
            *(table.split("/") for table in form.shared_tables),
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


def _no_run(form: StrategyForm, day: date) -> str | None:
    """Why nothing can run on `day`; None if it can."""
    if not form.calendar.is_session(day):
        return f"{day} is no trading session"
    if missing := form.missing_files():
        return f"not there: {', '.join(map(str, missing))}; put it there, or change the path in the strategy"
    return None


def _daily_schedule(name: str, form: StrategyForm, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    collected_at = form.calendar.daily_cycle.collected_at

    @dg.schedule(
        name=f"{name}_daily",
        job=job,
        cron_schedule=f"{collected_at.minute} {collected_at.hour} * * *",
        execution_timezone=form.calendar.time_zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        # Not the UTC date of the tick: in the evening of New York it is the next one already, and Fridays were skipped.
        day = form.calendar.session_collected_at(context.scheduled_execution_time)
        if reason := _no_run(form, day):
            return dg.SkipReason(reason)
        return dg.RunRequest(run_key=day.isoformat(), partition_key=day.isoformat())

    return daily


def _training_schedule(name: str, form: StrategyForm, job: UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=f"{name}_training",
        job=job,
        cron_schedule=_TRAINING_CRON,
        execution_timezone=form.calendar.time_zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def training(context: dg.ScheduleEvaluationContext, deployment: Deployment) -> dg.RunRequest | dg.SkipReason:
        day = context.scheduled_execution_time.astimezone(ZoneInfo(form.calendar.time_zone)).date()
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
