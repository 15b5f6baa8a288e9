"""What the assets reach the world through: the lake, the database and the clock of this deployment.

It has no configurable field on purpose. Dagster's run configuration can redirect any field of a resource, and the lake,
the database and the account must not be redirected by whoever may launch a run.
"""

from datetime import UTC, datetime
from functools import lru_cache

import dagster as dg
from sqlalchemy import Engine

from stockpicker_dagster.home import home
from stockpicker_dagster.storage.database import migrate, open_database
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.storage.opening import database_url, open_lake


class Deployment(dg.ConfigurableResource):
    """The lake, the database and the clock, as the environment names them."""

    @property
    def lake(self) -> Lake:
        return open_lake()

    @property
    def database(self) -> Engine:
        """The ledger's database, migrated to the current schema."""
        # Dagster's own commands come here without `stockpicker`, which makes the folder.
        home().root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _database(database_url())

    @property
    def unmigrated_database(self) -> Engine:
        """The same database as it is, whatever its schema: for looking at it before it is migrated."""
        home().root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return open_database(database_url())

    def now(self) -> datetime:
        """The current moment, in UTC."""
        return datetime.now(UTC)


@lru_cache(maxsize=8)
def _database(url: str) -> Engine:
    engine = open_database(url)
    migrate(engine)
    return engine
