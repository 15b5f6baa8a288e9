"""What Dagster's assets ask for a place to compute at.

It has no configurable field on purpose: see `compute.spark_session`. What a processing job runs on is the deployment's,
by its environment.
"""

import os
from collections.abc import Sequence

import dagster as dg

from stockpicker_dagster.compute import Compute, Place
from stockpicker_dagster.compute.in_process import IN_PROCESS
from stockpicker_dagster.compute.spark import OnSpark
from stockpicker_dagster.compute.spark_session import spark_session
from stockpicker_dagster.home import home
from stockpicker_dagster.storage.aws.settings import on_aws

INSTANCE_TYPE, ENGINE = "STOCKPICKER_PROCESSING_INSTANCE", "STOCKPICKER_PROCESSING_ENGINE"


class Computing(dg.ConfigurableResource):
    """Gives the place that a strategy names; Spark starts when it is first asked for."""

    def at(self, place: Place, own_modules: Sequence[str] = ()) -> Compute:
        """The place; `own_modules` name modules that machines elsewhere cannot import. Raises `SparkUnavailable`."""
        if place == "processing":
            return _processing(own_modules)
        return IN_PROCESS if place == "local" else OnSpark(spark_session(home()), own_modules)


def _processing(own_modules: Sequence[str]) -> Compute:
    """Jobs of the deployment's platform: SageMaker's on AWS, processes of this machine elsewhere."""
    from stockpicker_dagster.training.platforms import platform
    from stockpicker_dagster.training.platforms.processing import OnPlatform, engine

    return OnPlatform(
        platform("sagemaker" if on_aws() else "local"),
        home().root / "processing",
        instance_type=os.environ.get(INSTANCE_TYPE) or "ml.m5.4xlarge",
        engine=engine(os.environ.get(ENGINE) or "process"),
        own_modules=own_modules,
    )
