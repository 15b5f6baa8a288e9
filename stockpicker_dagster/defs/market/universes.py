"""The lists of named universes: one asset for each in use, refreshed every week from the public list.

A refresh never fails a run and replaces nothing in silence: the check `list_is_current` warns where the public list
could not be had or is not believed, and the lists already stored stay in force. What a list decides is in
`market.universes`.
"""

from collections.abc import Mapping

import dagster as dg

from stockpicker_dagster.market.universes.listed import LISTED, LISTED_NAMES, ListedName
from stockpicker_dagster.market.universes.refresh import Refreshed, refresh
from stockpicker_dagster.market.universes.snapshots import Changes, listed_universe
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.strategy_form import StrategyForm

_WEEKLY_CRON = "0 6 * * 6"
"""Saturday morning, so that a list is in force, or a person has seen why not, before the next session."""
_CHECK = "list_is_current"
_JOB = "universe_lists"


def universe_definitions(strategies: Mapping[str, StrategyForm]) -> dg.Definitions:
    """The lists of the named universes that the strategies use, with their weekly refresh; nothing where none is."""
    used = {form.universe.listed for form in strategies.values()}
    lists = [_members(name) for name in LISTED_NAMES if name in used]
    if not lists:
        return dg.Definitions()
    job = dg.define_asset_job(
        _JOB,
        selection=dg.AssetSelection.assets(*lists),
        description="Compares the lists of named universes with the public ones.",
    )
    weekly = dg.ScheduleDefinition(
        name=_JOB,
        job=job,
        cron_schedule=_WEEKLY_CRON,
        execution_timezone="America/New_York",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    return dg.Definitions(assets=lists, jobs=[job], schedules=[weekly])


def _members(name: ListedName) -> dg.AssetsDefinition:
    key = dg.AssetKey(["universes", name, "members"])

    @dg.asset(
        key=key,
        group_name="universes",
        kinds={"parquet"},
        description=f"The members of the {LISTED[name].title} with their sectors, one list for each day on which it "
        "changed; a list is in force from the day after it was stored.",
        check_specs=[dg.AssetCheckSpec(_CHECK, asset=key)],
    )
    def members(context: dg.AssetExecutionContext, deployment: Deployment) -> dg.MaterializeResult:
        lake = deployment.lake
        refreshed = refresh(lake, name, deployment.now())
        context.log.info(refreshed.sentence)
        return dg.MaterializeResult(
            metadata=_described(refreshed) | _in_force(deployment, name),
            check_results=[
                dg.AssetCheckResult(
                    check_name=_CHECK,
                    passed=refreshed.fine,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={"outcome": refreshed.sentence},
                )
            ],
        )

    return members


def _described(refreshed: Refreshed) -> dict[str, dg.MetadataValue]:
    """What the list changes, or would change."""
    return {
        "outcome": dg.MetadataValue.text(refreshed.sentence),
        "members": dg.MetadataValue.int(refreshed.members),
        "joined": dg.MetadataValue.int(len(refreshed.changes.joined)),
        "left": dg.MetadataValue.int(len(refreshed.changes.left)),
        "sector_changed": dg.MetadataValue.int(len(refreshed.changes.sector_changed)),
        "changes": dg.MetadataValue.md(as_table(refreshed.changes)),
    }


def _in_force(deployment: Deployment, name: ListedName) -> dict[str, dg.MetadataValue]:
    if not deployment.lake.bundles(f"universes/{name}/members"):
        return {}
    universe = listed_universe(deployment.lake, name)
    return {
        "history": dg.MetadataValue.text(universe.history),
        "caveat": dg.MetadataValue.text(universe.caveat or "none"),
    }


def as_table(changes: Changes) -> str:
    """The changes as a table in Markdown."""
    rows = ["| {} | {} |".format(*line.split(" ", 1)) for line in changes.lines()]
    return "\n".join(["| symbol | change |", "| --- | --- |", *rows]) if rows else "none"
