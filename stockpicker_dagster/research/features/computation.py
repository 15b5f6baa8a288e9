"""Runs a feature set for any days, so that a day has the same bytes whether it is computed alone or among others.

Every day is computed from its own *anchor*, the first session of the calendar year that contains the day one look-back
earlier; neighbouring days of one anchor share a panel, and panels are worked on side by side. No formula lives here,
and nothing is read or written.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from stockpicker_dagster.compute import Compute
from stockpicker_dagster.compute.in_process import IN_PROCESS
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.features.declaration import FeatureSet
from stockpicker_dagster.research.features.panel import PANEL_COLUMNS, Panel

if TYPE_CHECKING:
    from stockpicker_dagster.market.calendar import TradingCalendar


_PROCESSORS = os.cpu_count() or 1
_STRETCH, _LONGEST = 126, 252
"""Days computed at a time: enough to spread the cost of a panel, few enough that every processor gets some."""


def anchor(day: date, lookback: int, calendar: "TradingCalendar", start: date) -> date:
    """The session from which the adjusted prices behind the features of `day` cumulate.

    It is the first session of the calendar year that contains the session `lookback` sessions before `day`, or the
    first session of the source, on or after `start`, if that is later. Raises `InvalidInput` if `day` is no session or
    precedes `start`.
    """
    first = calendar.sessions(start, day)[:1] if start <= day else []
    position = calendar.index(day)
    if not first:
        raise InvalidInput(f"features of {day} were asked for, but the prices start on {start}; ask for a later day")
    if position - lookback <= calendar.index(first[0]):
        return first[0]
    return max(first[0], calendar.first_session_of_year(calendar.offset(day, -lookback).year))


def first_needed(days: Sequence[date], lookback: int, calendar: "TradingCalendar", start: date) -> date:
    """The first session whose prices `compute` needs for `days`: the anchor of the earliest of them."""
    if not days:
        raise InvalidInput("no days were asked for; name at least one session")
    return anchor(min(days), lookback, calendar, start)


def compute(
    features: FeatureSet,
    prices: pl.DataFrame,
    days: Sequence[date],
    calendar: "TradingCalendar",
    start: date,
    loaded_from: date | None = None,
    statements: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """The features of every stock that has a price row on each of `days`.

    `prices` is in the price contract and holds every row from `first_needed(...)` to the last of `days`; rows after a
    day change nothing of it. `start` is the first day of the source. `loaded_from` is the session from which `prices`
    was read, by default that of its earliest row. `statements` are those in force on `days`, for a set that needs
    `fundamentals`. Returns `symbol`, `date` and one Float32 column for each feature, sorted by date, then symbol; known
    after the close of `date`; null where the feature is undefined. Raises `InvalidInput` if the prices do not reach
    back to the anchor, lack a column, or repeat a row, or if statements are needed and not given.
    """
    if features.fundamentals and statements is None:
        raise InvalidInput(f"the set {features.name!r} needs statements of companies; pass those in force on the days")
    wanted = sorted(set(days))
    if not wanted:
        return _empty(features)
    needed = first_needed(wanted, features.lookback, calendar, start)
    reaches = loaded_from or prices["date"].min()
    if isinstance(reaches, date) and reaches > needed:
        raise InvalidInput(
            f"the features of {wanted[0]} need prices from {needed} on, but these start on {reaches}; "
            "load them from `first_needed` on"
        )
    stretches = list(_stretches(wanted, features.lookback, calendar, start))

    def one(stretch: tuple[date, list[date]]) -> pl.DataFrame:
        first, days = stretch
        return _compute_stretch(features, prices, first, days, calendar, statements)

    with ThreadPoolExecutor(_PROCESSORS) as pool:
        return pl.concat(pool.map(one, stretches))


def compute_by_year(
    features: FeatureSet,
    prices: pl.LazyFrame,
    days: Sequence[date],
    calendar: "TradingCalendar",
    start: date,
    statements: Callable[[Sequence[date]], pl.DataFrame | None] = lambda days: None,
    where: Compute = IN_PROCESS,
) -> Iterator[tuple[list[date], pl.DataFrame]]:
    """`compute`, a calendar year of `days` at a time, with those days: no more of it is held than a year.

    What a year needs of `prices` is collected when it is its turn; `statements` is asked for those of its days. `where`
    it is computed changes nothing: stocks do not see each other.
    """
    years: dict[int, list[date]] = {}
    for day in sorted(set(days)):
        years.setdefault(day.year, []).append(day)
    for of_year in years.values():
        needed = first_needed(of_year, features.lookback, calendar, start)
        rows = prices.filter(pl.col("date").is_between(needed, of_year[-1])).select("symbol", "date", *PANEL_COLUMNS)
        said = statements(of_year)
        frames = [rows.collect(), *([] if said is None else [said])]
        work = partial(_compute_for, features, of_year, calendar, start, needed)
        yield of_year, where.run(work, frames, "symbol", _empty(features).schema)


def _compute_for(
    features: FeatureSet,
    days: Sequence[date],
    calendar: "TradingCalendar",
    start: date,
    loaded_from: date,
    prices: pl.DataFrame,
    statements: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """`compute`, frames last: for all stocks, or for any of them."""
    return compute(features, prices, days, calendar, start, loaded_from, statements)


def _stretches(
    days: Sequence[date], lookback: int, calendar: "TradingCalendar", start: date
) -> Iterator[tuple[date, list[date]]]:
    """Days of one anchor with that anchor, in pieces short enough to keep every processor busy."""
    groups: dict[date, list[date]] = {}
    for day, first in zip(days, _anchors(days, lookback, calendar, start), strict=True):
        groups.setdefault(first, []).append(day)
    length = min(_LONGEST, max(_STRETCH, len(days) // (4 * _PROCESSORS)))
    for first, group in groups.items():
        for place in range(0, len(group), length):
            yield first, group[place : place + length]


def _anchors(days: Sequence[date], lookback: int, calendar: "TradingCalendar", start: date) -> Iterator[date]:
    """`anchor` of each of `days`, which ascend. The calendar is asked once for all sessions instead of for each day."""
    sessions = calendar.sessions(start, days[-1])
    row_of = {session: row for row, session in enumerate(sessions)}
    first_of_year = {session.year: session for session in reversed(sessions)}
    for day in days:
        if (row := row_of.get(day)) is None:
            yield anchor(day, lookback, calendar, start)
        else:
            yield first_of_year[sessions[row - lookback].year] if row > lookback else sessions[0]


def _compute_stretch(
    features: FeatureSet,
    prices: pl.DataFrame,
    first: date,
    days: list[date],
    calendar: "TradingCalendar",
    statements: pl.DataFrame | None,
) -> pl.DataFrame:
    """Days of one anchor, from one panel that starts there."""
    sessions = calendar.sessions(first, days[-1])
    symbols = prices.filter(pl.col("date").is_in(days))["symbol"].unique().sort().to_list()
    row_of = {session: row for row, session in enumerate(sessions)}
    since = row_of[days[0]]
    panel = Panel.from_prices(prices, sessions, symbols, since, statements)
    rows = np.array([row_of[day] for day in days])
    day_index, symbol_index = np.nonzero(panel.present[rows])
    where = (rows[day_index] - since) * len(symbols) + symbol_index
    keys = pl.DataFrame(
        {
            "symbol": pl.Series(symbols, dtype=pl.String).gather(symbol_index),
            "date": pl.Series(days, dtype=pl.Date).gather(day_index),
        }
    )
    columns = [_column(each.values(panel), where) for each in features.features]
    # All at once: handing columns to Polars one by one takes longer than some of them take to compute.
    made = pl.from_arrow(pa.RecordBatch.from_arrays(columns, list(features.names)))
    assert isinstance(made, pl.DataFrame)
    return keys.hstack(made)


def _column(values: NDArray[Any], where: NDArray[np.int64]) -> pa.Array:
    """The values at `where` as Float32, null where not finite; over the memory of `values` where nothing changes."""
    flat = np.ascontiguousarray(values).ravel()
    # Places are all different and ascending: as many of them as values are all of the values, in order.
    with np.errstate(over="ignore"):
        column = (flat if len(where) == len(flat) else flat.take(where)).astype(np.float32, copy=False)
    nulls = len(column) - _count_finite(column)
    valid = None
    if nulls:
        finite = np.isfinite(column)
        valid = pa.py_buffer(np.packbits(finite, bitorder="little"))
        # What lies under a null shows nowhere; as zero, it depends on nothing either.
        column = np.where(finite, column, np.float32(0.0))
    return pa.Array.from_buffers(pa.float32(), len(column), [valid, pa.py_buffer(column)], nulls)


@njit(cache=True, nogil=True)
def _count_finite(column: NDArray[np.float32]) -> int:
    count = 0
    for place in range(len(column)):
        count += abs(column[place]) < np.inf
    return count


def _empty(features: FeatureSet) -> pl.DataFrame:
    return pl.DataFrame(schema={"symbol": pl.String, "date": pl.Date} | dict.fromkeys(features.names, pl.Float32))
