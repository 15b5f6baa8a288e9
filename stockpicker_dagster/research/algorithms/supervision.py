"""How whoever started a training watches it, stops it and lets it go on later.

An algorithm only calls what is here; where progress is shown, and who asks for a stop, is not its business.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stockpicker_dagster.errors import StockPickerError


class TrainingStopped(StockPickerError):
    """A training ended early because it was asked to; with a checkpoint folder it can go on from there."""


@dataclass(frozen=True)
class Progress:
    """Where a training stands.

    `step` of at most `of` is done, counted from 1 (epochs, rounds of trees, updates of a policy; over all members of an
    ensemble). `loss` is what is minimized, on the training table, in the algorithm's own unit; `validation_rank_ic` is
    the mean rank IC on the validation table now. Either is NaN where there is none.
    """

    step: int
    of: int
    loss: float
    validation_rank_ic: float


def _unheard(progress: Progress) -> None:
    """Nobody listens."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Supervision:
    """What `fit` is given by whoever started it.

    `progress` is called after every step, in the training's own thread. `stop` is asked after every step: once it says
    yes, the training keeps its state in `checkpoints` and raises `TrainingStopped`. `checkpoints` is a folder of this
    training alone, made if it is not there (None: nothing is kept). A training that finds the state of one with the
    same tables, settings and seed there goes on from it, to the very bytes of one that was never stopped; other
    contents are replaced. State is data and executes nothing. An algorithm that trains in seconds may keep none, and
    starts again.
    """

    progress: Callable[[Progress], None] = _unheard
    stop: Callable[[], bool] = _never
    checkpoints: Path | None = None


UNSUPERVISED = Supervision()
