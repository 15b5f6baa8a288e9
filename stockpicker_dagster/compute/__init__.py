"""Where a function of frames runs: in this process, on Spark, or in a processing job of a platform.

What is computed is decided elsewhere, and is the same wherever it runs, to the last bit. `in_process` and `spark` are
two of the places; jobs belong to the platforms of `training`, and are in `training.platforms.processing`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import polars as pl

Place = Literal["local", "spark", "processing"]
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
