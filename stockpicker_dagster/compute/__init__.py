"""Where a function of frames runs: in this process, or on Spark.

What is computed is decided elsewhere, and is the same wherever it runs, to the last bit. `in_process` and `spark` are
the two places, `resource` is what Dagster's assets ask for one of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import polars as pl

Place = Literal["local", "spark"]
"""What a strategy calls the places."""

FrameFunction = Callable[..., "pl.DataFrame"]
"""Takes one frame or two and returns another."""


class Compute(Protocol):
    """A place where functions of frames run."""

    def run(
        self, function: FrameFunction, frames: Sequence["pl.DataFrame"], by: str, schema: Mapping[str, Any]
    ) -> "pl.DataFrame":
        """What `function` says of `frames`, one or two; it may be asked about some values of the column `by` at a time.

        So what it says of a value has to follow from the rows of that value alone, and every frame has the column.
        `schema` are the columns of its answer by name, `symbol` and `date` among them; rows come sorted by date, then
        symbol. Values of `by` that the first frame lacks do not count.
        """
        ...
