"""What Dagster's assets ask for a place to compute at.

It has no configurable field on purpose: see `spark_session`.
"""

from collections.abc import Sequence

import dagster as dg

from stockpicker_dagster.compute import Compute, Place
from stockpicker_dagster.compute.in_process import IN_PROCESS
from stockpicker_dagster.compute.spark import OnSpark
from stockpicker_dagster.compute.spark_session import spark_session
from stockpicker_dagster.home import home


class Computing(dg.ConfigurableResource):
    """Gives the place that a strategy names; Spark starts when it is first asked for."""

    def at(self, place: Place, own_modules: Sequence[str] = ()) -> Compute:
        """The place; `own_modules` name modules that machines elsewhere cannot import. Raises `SparkUnavailable`."""
        return IN_PROCESS if place == "local" else OnSpark(spark_session(home()), own_modules)
