"""Starts the Spark session that `compute: spark` runs on, through dagster-pyspark.

Which cluster it is follows from the file `spark.conf` in the state folder alone, never from Dagster's configuration:
whoever may launch a run must not send code and prices to a cluster of their choice. Without the file it is every core
of this machine. What runs there is in `spark`.
"""

import os
import re
import shutil
import sys
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import stockpicker_dagster
from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.home import Home

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SETTINGS = "spark.conf"
"""The file in the state folder, in the format of Spark's own `spark-defaults.conf`."""

_EVERYWHERE = {
    "spark.app.name": "stockpicker",
    # It would warn of every table that is sent, that it is large for a part of a job.
    "spark.log.level": "ERROR",
    # Each task has a core to itself.
    "spark.executorEnv.POLARS_MAX_THREADS": "1",
}
_ON_THIS_MACHINE = {
    "spark.master": "local[*]",
    # Nobody else may reach it.
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "2g",
}


class SparkUnavailable(StockPickerError):
    """Spark cannot be used here."""


def lacking() -> str | None:
    """What Spark needs and this machine does not have, in a sentence with the way out; None if nothing."""
    if find_spec("pyspark") is None or find_spec("dagster_pyspark") is None:
        return (
            "features: {compute: spark} needs the extra `spark`, which is not installed; "
            "pip install 'stockpicker-dagster[spark]', or leave out compute"
        )
    if _java() is None:
        return (
            "features: {compute: spark} needs Java 17 or later, and no `java` was found; install it "
            "(Debian: default-jre-headless) or set JAVA_HOME, or leave out compute"
        )
    return None


def settings(place: Home) -> dict[str, str]:
    """What a session is started with: `spark.conf` over what holds where it is silent.

    Raises `InvalidInput` for a line that is no name and value.
    """
    path = place.root / SETTINGS
    chosen = dict(_lines(path)) if path.is_file() else {}
    local = chosen.get("spark.master", "local").startswith("local")
    return {**_EVERYWHERE, **(_ON_THIS_MACHINE if local else {}), **chosen}


def spark_session(place: Home) -> "SparkSession":
    """The session of this process, started at the first call; it lives as long as the process.

    Raises `SparkUnavailable` where Spark lacks something or does not start.
    """
    if (reason := lacking()) is not None:
        raise SparkUnavailable(reason)
    from dagster_pyspark import LazyPySparkResource

    chosen = settings(place)
    if chosen["spark.master"].startswith("local"):
        # Tasks run in processes of this Python, and find this very project.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        chosen.setdefault("spark.executorEnv.PYTHONPATH", str(Path(stockpicker_dagster.__file__).parent.parent))
        chosen.setdefault("spark.sql.warehouse.dir", str(Path(tempfile.gettempdir()) / "stockpicker-spark-warehouse"))
    try:
        with warnings.catch_warnings():
            # Nothing here goes by way of pandas.
            warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
            session: SparkSession = LazyPySparkResource(spark_config=chosen).spark_session
    except Exception as error:  # of PySpark, of Py4J or of the Java behind them: all mean the same to the reader
        raise SparkUnavailable(
            f"Spark did not start on {chosen['spark.master']!r} ({str(error).splitlines()[0]}); "
            f"it needs Java 17 or later; the cluster is chosen by {place.root / SETTINGS}"
        ) from error
    return session


def _java() -> str | None:
    """As Spark's own scripts look for it."""
    named = os.environ.get("JAVA_HOME")
    return shutil.which("java", path=str(Path(named) / "bin")) if named else shutil.which("java")


def _lines(path: Path) -> list[tuple[str, str]]:
    """The names and values in the file; a name ends at white space or at `=`."""
    pairs = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        read = re.fullmatch(r"(spark\.[\w.-]+)\s*[=\s]\s*(\S.*)", text)
        if read is None:
            raise InvalidInput(
                f"{path}:{number}: {text!r} is no setting of Spark; write a name that starts with spark. and a value, "
                "such as `spark.master yarn`"
            )
        pairs.append((read[1], read[2]))
    return pairs
