"""How Dagster's assets reach the lake: whole ranges of sessions as one lazy frame, model periods as bundles.

A daily asset returns one frame, or a `DayTable`, for all the sessions of its run, or `DayPieces` where they are too
many to be held at once; they are stored session by session. An asset of model periods returns one `Bundle` for each
period of its run, by the period's key. The root comes from the environment alone: nothing here is Dagster
configuration, which whoever launches a run may edit.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path

import dagster as dg
import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.lake import DEFINITION, Bundle, DayPieces, DayTable, Lake, describe_days
from stockpicker_dagster.storage.opening import open_lake

UNPARTITIONED = "fixed"
"""The key of the one bundle of an asset without partitions: the model of a strategy with fixed periods."""


class LakeIOManager(dg.ConfigurableIOManager):
    """Stores frames of trading days and bundles of model periods in the lake."""

    @property
    def lake(self) -> Lake:
        return open_lake()

    def handle_output(
        self, context: dg.OutputContext, obj: pl.DataFrame | DayTable | DayPieces | dict[str, Bundle] | None
    ) -> None:
        """Stores every partition of the run. Raises `InvalidInput` on anything that is no table and no bundle."""
        table = context.asset_key.to_user_string()
        if obj is None:
            return
        if isinstance(obj, pl.DataFrame):
            obj = DayTable(obj)
        if isinstance(obj, DayTable | DayPieces):
            sessions = _Sessions(context.asset_partitions_def)
            days = [date.fromisoformat(key) for key in context.asset_partition_keys]
            if DEFINITION in obj.note:
                self.lake.refuse_mixture(table, obj.note[DEFINITION], days)
            inherited = {} if obj.made_from is None else self.lake.decisions(obj.made_from, days)
            if isinstance(obj, DayTable):
                for name, rows in obj.beside.items():
                    self.lake.write_days(name, rows, days, sessions.of_year)
                self.lake.write_days(table, obj.frame, days, sessions.of_year, obj.note, {**inherited, **obj.day_notes})
            else:
                self._write_pieces(table, obj, days, sessions, inherited)
        elif isinstance(obj, dict):
            for key, bundle in obj.items():
                self.lake.write_bundle(table, key, bundle)
        else:
            raise InvalidInput(f"{table} returned a {type(obj).__name__}; the lake keeps frames and bundles")

    def _write_pieces(
        self,
        table: str,
        obj: DayPieces,
        days: Sequence[date],
        sessions: "_Sessions",
        day_notes: Mapping[date, Mapping[str, str]],
    ) -> None:
        left = set(days)
        for some, rows in obj.pieces:
            self.lake.write_days(table, rows, some, sessions.of_year, obj.note, day_notes)
            left -= set(some)
        if left:
            raise InvalidInput(f"{table} was made without {describe_days(sorted(left))}; a run stores all of its days")

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame | dict[str, Path]:
        """The upstream's sessions as a lazy frame, or the folders of its bundles by key. Raises on what is missing."""
        table = context.asset_key.to_user_string()
        if not context.has_asset_partitions:
            return {UNPARTITIONED: self.lake.bundle(table, UNPARTITIONED)}
        if isinstance(context.asset_partitions_def, dg.DailyPartitionsDefinition):
            return self.lake.scan(table, [date.fromisoformat(key) for key in context.asset_partition_keys])
        return {key: self.lake.bundle(table, key) for key in context.asset_partition_keys}


class _Sessions:
    """The sessions of a daily partitions definition by year, passed or not."""

    def __init__(self, partitions: dg.PartitionsDefinition) -> None:
        if not isinstance(partitions, dg.DailyPartitionsDefinition):
            raise InvalidInput("a table of days needs an asset with daily partitions")
        self.partitions = partitions

    def of_year(self, year: int) -> Sequence[date]:
        return [day for day in _keys_through(self.partitions, year) if day.year == year]


@lru_cache(maxsize=64)
def _keys_through(partitions: dg.DailyPartitionsDefinition, year: int) -> tuple[date, ...]:
    keys = partitions.get_partition_keys(current_time=datetime(year + 1, 1, 8, tzinfo=UTC))
    return tuple(date.fromisoformat(key) for key in keys)
