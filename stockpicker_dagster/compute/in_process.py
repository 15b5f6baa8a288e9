"""The embedded place: functions of frames run here, with all their rows at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from stockpicker_dagster.compute import FrameFunction


class InProcess:
    """Runs functions as they are; they use the processors of this machine by themselves."""

    def run(
        self, function: FrameFunction, frames: Sequence[pl.DataFrame], by: str, schema: Mapping[str, Any]
    ) -> pl.DataFrame:
        """`function(*frames)`, as `Compute` says."""
        return function(*frames)


IN_PROCESS = InProcess()
