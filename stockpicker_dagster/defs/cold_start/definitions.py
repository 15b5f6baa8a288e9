"""`cold_start`: the same as the command `stockpicker cold-start`, from Dagster's pages. It takes no configuration."""

import dagster as dg

from stockpicker_dagster.cold_start import cold_start as make_what_is_lacking
from stockpicker_dagster.storage.deployment import Deployment


@dg.op(description="Makes buckets, schema and lists where they are lacking; never takes anything away.")
def make_deployment(context: dg.OpExecutionContext, deployment: Deployment) -> None:
    outcomes = []
    for outcome in make_what_is_lacking(deployment):
        context.log.info("%s", outcome)
        outcomes.append(outcome)
    made = [outcome.what for outcome in outcomes if outcome.done]
    context.add_output_metadata({"looked_at": len(outcomes), "done": made or "nothing was lacking"})


@dg.job(
    description="From an empty account or disk to a place where strategies run.", executor_def=dg.in_process_executor
)
def cold_start() -> None:
    make_deployment()


@dg.definitions
def definitions() -> dg.Definitions:
    """The job."""
    return dg.Definitions(jobs=[cold_start])
