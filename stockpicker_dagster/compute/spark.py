"""Functions of frames on Spark: the rows of some stocks, or of some dates, go to each task, and its answer comes back.

Frames leave from this process and return to it, so that it alone reads and stores the lake: the machines of the cluster
need the project and its packages, and no way to any data. A task runs the function that would have run here; which rows
come together is no input. To Spark, the frames of a task are one row, its number and their bytes: it need not know
their columns, nor take them apart on the way. How a session is started is in `spark_session`.
"""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa

from stockpicker_dagster.compute import FrameFunction
from stockpicker_dagster.compute.travelling import packed, pickled, unpacked, unpickled
from stockpicker_dagster.errors import StockPickerError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_TASKS_PER_CORE = 4
"""Where there are few values, each core gets about this many tasks, so that it does not wait for the slowest one."""
_MOST_VALUES = 64
"""Stocks or dates in a task: enough to spread its fixed cost, few enough that a task needs little memory."""
_BYTES_AT_A_TIME = 2**28
"""What a job may answer at most, about: it has to pass through the memory of Spark's driver."""
_TASK, _SENT = "task", "sent"
_SCHEMA = pa.schema([(_TASK, pa.int64()), (_SENT, pa.list_(pa.binary()))])
_SPARK_SCHEMA = f"{_TASK} bigint, {_SENT} array<binary>"


class ComputeFailed(StockPickerError):
    """A task on Spark failed; the message says what it said."""


class OnSpark:
    """Runs functions on a Spark session.

    `own_modules` name modules that the cluster's machines cannot import: functions and classes of them travel along.
    """

    def __init__(self, session: "SparkSession", own_modules: Sequence[str] = ()) -> None:
        self._session = session
        self._own_modules = tuple(own_modules)

    def run(
        self, function: FrameFunction, frames: Sequence[pl.DataFrame], by: str, schema: Mapping[str, Any]
    ) -> pl.DataFrame:
        """As `Compute` says. Raises `ComputeFailed` if a task does."""
        values = frames[0][by].unique().sort()
        if values.is_empty():
            return function(*frames)
        cores = int(self._session.sparkContext.defaultParallelism)
        size = max(1, min(_MOST_VALUES, math.ceil(len(values) / (_TASKS_PER_CORE * cores))))
        count = math.ceil(len(values) / size)
        tasks = pl.DataFrame({by: values, _TASK: pl.int_range(len(values), eager=True) // size})
        parts = [_parts(frame.join(tasks, on=by, maintain_order="left")) for frame in frames]
        told = pickled(function, self._own_modules)
        answer_bytes = sum(_bytes(kind) for kind in schema.values()) * math.ceil(frames[0].height / count)
        step = max(cores, _BYTES_AT_A_TIME // max(1, answer_bytes))
        empty, answers = [frame.clear() for frame in frames], []
        for first in range(0, count, step):
            numbers = range(first, min(first + step, count))
            sent = [
                [packed(part.get((number,), nothing)) for part, nothing in zip(parts, empty, strict=True)]
                for number in numbers
            ]
            answers += self._job(told, list(numbers), sent)
        return pl.concat(answers).sort("date", "symbol")

    def _job(self, told: bytes, numbers: Sequence[int], sent: Sequence[list[bytes]]) -> list[pl.DataFrame]:
        """The answers of some tasks, in any order; `told` is the function, pickled."""
        from pyspark.errors import PySparkException

        table = _table(numbers, sent)

        def work(rows: pa.Table) -> pa.Table:
            return _worked_on(told, rows)

        try:
            with warnings.catch_warnings():
                # Nothing here goes by way of pandas.
                warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
                # Told how many partitions to make, Spark does not merge small ones: little data can be much work.
                spread = self._session.createDataFrame(table).repartition(len(numbers), _TASK)
                found = spread.groupBy(_TASK).applyInArrow(work, _SPARK_SCHEMA).toArrow()
        except PySparkException as error:
            raise ComputeFailed(f"a task on Spark failed: {_reason(error)}") from error
        return [unpacked(answer) for (answer,) in found[_SENT].to_pylist()]


def _parts(frame: pl.DataFrame) -> dict[tuple[Any, ...], pl.DataFrame]:
    """The rows of each task by its number."""
    return frame.partition_by(_TASK, as_dict=True, include_key=False, maintain_order=True)


def _bytes(kind: Any) -> int:
    return {pl.Float32: 4, pl.Date: 4, pl.String: 12}.get(kind.base_type(), 8)


def _reason(error: Exception) -> str:
    """What the task's own error said: the last line of the traceback that Spark repeats."""
    lines = re.findall(r"^(?:[\w.]+(?:Error|Input|Exception|Feature|Interrupt)): .*$", str(error), re.MULTILINE)
    return lines[0].split(": ", 1)[1] if lines else str(error).splitlines()[0]


# Here and in the tasks ------------------------------------------------------------------------------------------------


def _table(numbers: Sequence[int], sent: Sequence[list[bytes]]) -> pa.Table:
    """One row a task: its number and the bytes of its frames."""
    return pa.table([pa.array(numbers, _SCHEMA.types[0]), pa.array(sent, _SCHEMA.types[1])], schema=_SCHEMA)


def _worked_on(told: bytes, rows: pa.Table) -> pa.Table:
    """The answer of one task, which is one row."""
    (number,), (sent,) = rows[_TASK].to_pylist(), rows[_SENT].to_pylist()
    answer = _function(told)(*map(unpacked, sent))
    return _table([number], [[packed(answer)]])


@lru_cache(maxsize=4)
def _function(told: bytes) -> FrameFunction:
    """Unpickled once in a process that works on many tasks: compiled code that travelled is compiled anew."""
    return unpickled(told)
