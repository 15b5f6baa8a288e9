"""Runs a feature set for any days, so that a day has the same bytes whether it is computed alone or among others.

Every day is computed from its own *anchor*, the first session of the calendar year that contains the day one look-back
earlier; days that share an anchor share a panel. No formula lives here, and nothing is read or written.
"""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.features.declaration import FeatureSet
from stockpicker_dagster.research.features.panel import Panel

if TYPE_CHECKING:
    from stockpicker_dagster.market.calendar import TradingCalendar


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
) -> pl.DataFrame:
    """The features of every stock that has a price row on each of `days`.

    `prices` is in the price contract and holds every row from `first_needed(...)` to the last of `days`; rows after a
    day change nothing of it. `start` is the first day of the source. `loaded_from` is the session from which `prices`
    was read, by default that of its earliest row. Returns `symbol`, `date` and one Float32 column for each feature,
    sorted by date, then symbol; known after the close of `date`; null where the feature is undefined. Raises
    `InvalidInput` if the prices do not reach back to the anchor, lack a column, or repeat a row.
    """
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
    groups: dict[date, list[date]] = {}
    for day in wanted:
        groups.setdefault(anchor(day, features.lookback, calendar, start), []).append(day)
    return pl.concat([_compute_group(features, prices, first, group, calendar) for first, group in groups.items()])


def _compute_group(
    features: FeatureSet, prices: pl.DataFrame, first: date, days: list[date], calendar: "TradingCalendar"
) -> pl.DataFrame:
    """Days of one anchor, from one panel that starts there."""
    sessions = calendar.sessions(first, days[-1])
    symbols = prices.filter(pl.col("date").is_in(days))["symbol"].unique().sort().to_list()
    row_of = {session: row for row, session in enumerate(sessions)}
    panel = Panel.from_prices(prices, sessions, symbols, since=row_of[days[0]])
    rows = np.array([row_of[day] for day in days])
    day_index, symbol_index = np.nonzero(panel.present[rows])
    columns = {
        "symbol": pl.Series(symbols, dtype=pl.String).gather(symbol_index),
        "date": pl.Series(days, dtype=pl.Date).gather(day_index),
    }
    for each in features.features:
        columns[each.name] = _as_float32(each.name, each(panel)[rows[day_index], symbol_index])
    return pl.DataFrame(columns)


def _as_float32(name: str, values: np.ndarray) -> pl.Series:
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    return pl.Series(name, np.where(np.isfinite(narrow), narrow, np.float32(np.nan)), nan_to_null=True)


def _empty(features: FeatureSet) -> pl.DataFrame:
    return pl.DataFrame(schema={"symbol": pl.String, "date": pl.Date} | dict.fromkeys(features.names, pl.Float32))
