"""The sensor that sends notices, and on days without a rebalance puts the ranking among them.

It informs and decides nothing; what is told and how it gets there is in `trading.notifications`.
"""

from collections.abc import Mapping

import dagster as dg
from sqlalchemy import select

from stockpicker_dagster.components.strategy import StockPickerStrategy
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.notifications.delivery import drain
from stockpicker_dagster.trading.notifications.outbox import put, ranking_notice

_SHOWN = 10


@dg.definitions
def notices(context: dg.ComponentLoadContext) -> dg.Definitions:
    """The sensor, for every strategy of the project."""
    strategies = context.component_tree.get_all_components(StockPickerStrategy)
    return dg.Definitions(sensors=[notices_sensor({strategy.name: strategy.form for strategy in strategies})])


def notices_sensor(forms: Mapping[str, StrategyForm]) -> dg.SensorDefinition:
    """Looks every half minute for what is to be told."""

    @dg.sensor(
        name="notices",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends notices of proposals, decisions, executions and halts, and rankings without a proposal.",
    )
    def send_notices(context: dg.SensorEvaluationContext, deployment: Deployment) -> dg.SkipReason:
        if _anybody(deployment):
            for name in forms:
                announce_ranking(deployment, name)
        return dg.SkipReason(str(drain(deployment.database, deployment.now())))

    return send_notices


def announce_ranking(deployment: Deployment, name: str) -> int:
    """Puts the ranking of the last session into the outbox, unless that session has a proposal; says for how many."""
    # The plan is stored last, empty on days without a rebalance: by then it is known whether there is a proposal.
    planned = deployment.lake.days(f"{name}/rebalance_orders")
    now = deployment.now()
    if not planned or (now.date() - planned[-1]).days > 2:
        return 0
    session, table = planned[-1], ledger.proposals
    with deployment.database.connect() as connection:
        proposed = connection.execute(
            select(table.c.id).where(table.c.strategy == name, table.c.session == session).limit(1)
        ).one_or_none()
    if proposed is not None or session not in deployment.lake.days(f"{name}/predictions"):
        return 0
    ranked = deployment.lake.read(f"{name}/predictions", [session]).sort("rank")["symbol"].to_list()
    if not ranked:
        return 0
    best, worst = ranked[:_SHOWN], ranked[: -_SHOWN - 1 : -1]
    notice = ranking_notice(name, session.isoformat(), best, worst, "no rebalance is proposed", now)
    return put(deployment.database, notice, now)


def _anybody(deployment: Deployment) -> bool:
    table = ledger.notice_targets
    with deployment.database.connect() as connection:
        wanted = select(table.c.name).where(table.c.disabled_at.is_(None)).limit(1)
        return connection.execute(wanted).one_or_none() is not None
