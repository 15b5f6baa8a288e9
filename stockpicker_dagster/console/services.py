"""What the console's pages work with: the desk that they read from, and what outlives a single request."""

from collections.abc import Callable
from dataclasses import dataclass

from stockpicker_dagster.console.door.first_person import FirstPersonLink
from stockpicker_dagster.console.door.identity_provider import IdentityProvider
from stockpicker_dagster.console.starts import Starts
from stockpicker_dagster.console.views.backtests import TearSheets
from stockpicker_dagster.console.views.beside import one_worker
from stockpicker_dagster.console.views.comparisons import Comparisons
from stockpicker_dagster.console.views.desk import Desk
from stockpicker_dagster.home import Home
from stockpicker_dagster.trading.signatures import Signer


@dataclass(frozen=True)
class Services:
    """The services of one server; `signer` signs live decisions."""

    desk: Desk
    home: Home
    first_person: FirstPersonLink
    tear_sheets: TearSheets
    comparisons: Comparisons
    starts: Starts
    signer: Callable[[], Signer]
    provider: IdentityProvider | None = None
    """Where people may sign in as well; None where there is no such place."""


def services(
    desk: Desk, home: Home, signer: Callable[[], Signer], provider: IdentityProvider | None = None
) -> Services:
    """The services of one server on `home`."""
    worker = one_worker()
    return Services(
        desk=desk,
        home=home,
        first_person=FirstPersonLink(desk.database, desk.now()),
        tear_sheets=TearSheets(desk, worker),
        comparisons=Comparisons(desk, worker),
        starts=Starts(home.root / "console" / "runs"),
        signer=signer,
        provider=provider,
    )
