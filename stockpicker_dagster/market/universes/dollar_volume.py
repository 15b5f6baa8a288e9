"""The stocks with the largest dollar volume, made anew every month, quarter or year from prices alone.

Dollar volume is close times volume of a session. It needs no adjustment: a split divides the one by what it multiplies
the other with. That holds for split-adjusted files too, if their volume is restated along with the prices; where it is
not, dollar volumes before a split are too small by its ratio, and nothing in the file shows it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Literal

import polars as pl

from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.market.universes.membership import SPELLS_SCHEMA, Universe, from_spells

WINDOW_SESSIONS = 63
"""A quarter of sessions, over which the median is taken."""
LEAST_OBSERVED = 42
"""Of these sessions, as many a stock must have prices on to be ranked."""

Cadence = Literal["monthly", "quarterly", "yearly"]
_MONTHS = {"monthly": 1, "quarterly": 3, "yearly": 12}

ReadPrices = Callable[[Sequence[date]], pl.LazyFrame]
"""Gives the stored prices (`symbol`, `date`, `close`, `volume`, ...) of some sessions, ascending."""

DOLLAR_VOLUME = pl.col("close") * pl.col("volume")


@dataclass(frozen=True)
class TopRule:
    """The `count` largest stocks by dollar volume, chosen anew with `cadence`."""

    count: int
    cadence: Cadence = "quarterly"


def top_by_dollar_volume(
    rule: TopRule,
    span: tuple[date, date],
    read: ReadPrices,
    calendar: TradingCalendar,
    start: date,
    candidates: Universe | None = None,
) -> Universe:
    """The members by `rule` on every session of `span`, first and last included.

    On a reconstitution day, the first session of a month, quarter or year, the members are chosen by their median
    dollar volume over the `WINDOW_SESSIONS` sessions before that day, among the stocks with prices on at least
    `LEAST_OBSERVED` of them that were `candidates` (None: every stock in the prices) on the last of them; ties go to
    the symbol that sorts first. They stay until the next such day; who stops trading is not replaced before it. The
    first choice is made once `WINDOW_SESSIONS` sessions from `start`, the prices' first day, have passed; nobody is a
    member before.
    """
    name = f"top {rule.count} by dollar volume" + (f" of {candidates.name}" if candidates else "")
    days = reconstitution_days(span, rule.cadence, calendar, start)
    chosen = [_chosen(rule.count, day, read, calendar, candidates) for day in days]
    spells = [
        members.with_columns(start=day, end=end)
        for members, (day, end) in zip(chosen, pairwise([*days, None]), strict=True)
    ]
    frame = pl.concat([pl.DataFrame(schema=SPELLS_SCHEMA), *(_as_spells(each) for each in spells)])
    caveats = ["ranked among the stocks that the price source holds: a stock that it lacks was never considered"]
    if candidates is not None and candidates.caveat:
        caveats.append(candidates.caveat)
    return from_spells(
        name,
        frame,
        point_in_time=candidates is None or candidates.point_in_time,
        caveat="; ".join(caveats),
        point_in_time_since=candidates.point_in_time_since if candidates else None,
    )


def reconstitution_days(
    span: tuple[date, date], cadence: Cadence, calendar: TradingCalendar, start: date
) -> list[date]:
    """The days on which members are chosen that matter for `span`: those in it, and the last one before it."""
    first, last = span
    sessions = calendar.sessions(start, last)
    if len(sessions) <= WINDOW_SESSIONS:
        return []
    beginnings = [
        day
        for before, day in zip(sessions[WINDOW_SESSIONS:], sessions[WINDOW_SESSIONS + 1 :], strict=False)
        if _period(before, cadence) != _period(day, cadence)
    ]
    days = [sessions[WINDOW_SESSIONS], *beginnings]
    in_force = max((position for position, day in enumerate(days) if day <= first), default=0)
    return days[in_force:]


def _period(day: date, cadence: Cadence) -> int:
    return (day.year * 12 + day.month - 1) // _MONTHS[cadence]


def _chosen(
    count: int, day: date, read: ReadPrices, calendar: TradingCalendar, candidates: Universe | None
) -> pl.DataFrame:
    """The members from `day` on: `symbol`, with `sector` and `industries` as the candidates have them."""
    window = calendar.sessions(calendar.offset(day, -WINDOW_SESSIONS), calendar.previous_session(day))
    prices = read(window).select("symbol", dollars=DOLLAR_VOLUME)
    ranked = prices.group_by("symbol").agg(median=pl.col("dollars").median(), observed=pl.len())
    ranked = ranked.filter(pl.col("observed") >= LEAST_OBSERVED)
    of_the_day = _groups(candidates, window[-1])
    if candidates is not None:
        ranked = ranked.join(of_the_day.lazy(), on="symbol", how="semi")
    top = ranked.sort(["median", "symbol"], descending=[True, False]).head(count).select("symbol").collect()
    return top.join(of_the_day, on="symbol", how="left")


def _groups(candidates: Universe | None, day: date) -> pl.DataFrame:
    """`symbol`, `sector` and `industries` of the candidates of `day`."""
    if candidates is None:
        return pl.DataFrame(schema={name: SPELLS_SCHEMA[name] for name in ("symbol", "sector", "industries")})
    spells = candidates.spells
    began = pl.col("start").is_null() | (pl.col("start") <= day)
    lasts = pl.col("end").is_null() | (pl.col("end") > day)
    return spells.filter(began & lasts).select("symbol", "sector", "industries")


def _as_spells(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(kind) for name, kind in SPELLS_SCHEMA.items())
