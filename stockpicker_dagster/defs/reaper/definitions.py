"""The schedule that deletes what scorings left running on a platform, because the process that made it was killed.

An endpoint bills until it is deleted; so this looks at tags and ages alone, and at nothing that the process knew.
"""

from datetime import UTC, datetime

import dagster as dg

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.training.platforms import PlatformFailure, platforms_of_deployment
from stockpicker_dagster.training.platforms.reaper import left_over, reap


@dg.op(description="Deletes endpoints, configurations and models that scorings left, and stops their jobs.")
def delete_what_is_left(context: dg.OpExecutionContext) -> None:
    reaped = [each for place in platforms_of_deployment() for each in reap(place, datetime.now(UTC))]
    for left, gone in reaped:
        context.log.info("%s: %s", "deleted" if gone else "not yet deleted", left)
    context.add_output_metadata({"deleted": [str(left) for left, gone in reaped if gone]})
    if remaining := [str(left) for left, gone in reaped if not gone]:
        raise PlatformFailure(f"not yet deleted: {', '.join(remaining)}; the next tick tries again")


@dg.job(description="What scorings left running is deleted.", executor_def=dg.in_process_executor)
def delete_left_deployments() -> None:
    delete_what_is_left()


@dg.schedule(
    job=delete_left_deployments,
    cron_schedule="7,37 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Looks every half hour for what scorings left running for more than two hours.",
)
def reaper(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    try:
        found = [left for place in platforms_of_deployment() for left in left_over(place, datetime.now(UTC))]
    except StockPickerError as error:
        # Said on every tick until it is put right, and never at the cost of the other schedules.
        return dg.SkipReason(f"it could not be seen what is left: {error}")
    if not found:
        return dg.SkipReason("nothing is left running")
    context.log.info("left: %s", ", ".join(map(str, found)))
    return dg.RunRequest()


@dg.definitions
def definitions() -> dg.Definitions:
    """The job and its schedule."""
    return dg.Definitions(jobs=[delete_left_deployments], schedules=[reaper])
