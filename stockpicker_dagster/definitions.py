"""The front door: what Dagster loads, with the resources of this deployment bound.

Strategies are found under `defs/strategies`. Runs execute in one process, because a strategy's day is seconds of work
and starting a process for each of its assets takes longer than that.
"""

import warnings
from pathlib import Path

import dagster as dg

from stockpicker_dagster.components.computing import Computing
from stockpicker_dagster.home import home, keep_compiled_kernels
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.io_manager import LakeIOManager

# Ranges in one run, and checks on partitions, are marked beta in the pinned release; the pin is why that is safe.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)


def bind(definitions: dg.Definitions) -> dg.Definitions:
    """`definitions` with the resources and the executor that every run uses."""
    return dg.Definitions.merge(
        definitions,
        dg.Definitions(
            resources={"io_manager": LakeIOManager(), "deployment": Deployment(), "computing": Computing()},
            executor=dg.in_process_executor,
        ),
    )


# Dagster's own processes come here without the `stockpicker` command.
keep_compiled_kernels(home())


@dg.definitions
def defs() -> dg.Definitions:
    """Everything in the project."""
    return bind(dg.load_from_defs_folder(path_within_project=Path(__file__).parent))
