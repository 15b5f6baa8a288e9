"""The sensor that compares the books of paper accounts with their broker's, between proposals and executions.

Accounts at real brokers are reconciled by their traders, which alone reach them; what is compared, and what follows
from a difference, is in `trading.reconciliation`.
"""

import dagster as dg
from sqlalchemy import select

from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.trading import desk, ledger

EVERY_S = 900


@dg.definitions
def trading(context: dg.ComponentLoadContext) -> dg.Definitions:
    """The sensor, for every paper account of the ledger."""
    return dg.Definitions(sensors=[reconciliation_sensor()])


def reconciliation_sensor() -> dg.SensorDefinition:
    """Compares every quarter of an hour; a difference halts the account, which is told as any halt."""

    @dg.sensor(
        name="reconciliation",
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Compares the books of paper accounts with their broker's, and halts those that differ.",
    )
    def reconcile_paper(context: dg.SensorEvaluationContext, deployment: Deployment) -> dg.SkipReason:
        return dg.SkipReason(reconcile_all(deployment))

    return reconcile_paper


def reconcile_all(deployment: Deployment) -> str:
    """Compares the books of every account that the embedded broker keeps; what was found, in a sentence."""
    table, said = ledger.accounts, []
    with deployment.database.connect() as connection:
        paper = connection.execute(select(table.c.id).where(table.c.broker == "paper").order_by(table.c.id))
        names = paper.scalars().all()
    for name in names:
        found = desk.reconcile_account(deployment.database, name, deployment.now())
        said.append(f"{name}: {'the books agree' if found.agrees else '; '.join(found.differences)}")
    return ", ".join(said) or "there is no paper account yet"
