"""Membership: which stocks may be picked on a day, and in which sector they are.

A universe is a table of membership spells and an honest word on where they come from: whether its history is point in
time, since when, and what every report must repeat. How lists are read, kept and refreshed is in the files beside.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property

import numpy as np
import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.universes.symbols import normalise_symbol

SPELLS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "start": pl.Date(),
    "end": pl.Date(),
    "sector": pl.String(),
    "industries": pl.List(pl.String()),
}
"""One row per stretch of membership: `start` the first day in (null: always was), `end` the first day out (null: still
a member), `sector` null where unknown, `industries` every name of its industry that the list gives (null: none). Spells
of one symbol do not overlap."""

TODAYS_SECTORS = "sectors as of the file, not point in time"


@dataclass(frozen=True)
class Universe:
    """The members of a universe on any day, from its `spells` (`SPELLS_SCHEMA`, by symbol and start).

    `point_in_time` says whether membership on every day *t* was known on day *t*; where it is not,
    `point_in_time_since` is the first day from which it is (None: on no day). `caveat` is what every report made from
    this universe must repeat, None if nothing.
    """

    name: str
    point_in_time: bool
    spells: pl.DataFrame
    caveat: str | None
    point_in_time_since: date | None = None

    @property
    def history(self) -> str:
        """Whether membership is point in time, in words."""
        if self.point_in_time:
            return "point in time"
        since = self.point_in_time_since
        return f"point in time since {since}, not before" if since else "not point in time"

    def members(self, day: date) -> list[str]:
        """The symbols that were members on `day`, in alphabetical order."""
        return self._overlapping(day, day)

    def symbols_ever(self, first: date, last: date) -> list[str]:
        """The symbols that were members on some day from `first` to `last`, both included, in alphabetical order."""
        return self._overlapping(first, last)

    def membership(self, sessions: Sequence[date]) -> pl.DataFrame:
        """One row (`symbol`, `date`) per member and session, sorted by date, then symbol; `sessions` is ascending."""
        return self.sectors_on(sessions).drop("sector")

    def sectors_on(self, sessions: Sequence[date]) -> pl.DataFrame:
        """The rows of `membership` with each member's `sector` of that day, null where unknown."""
        days = np.array(sessions, dtype="datetime64[D]")
        if (np.diff(days.astype(np.int64)) <= 0).any():
            raise InvalidInput("the sessions asked for are not in ascending order; sort them and drop repeats")
        first = np.searchsorted(days, self.spells["start"].fill_null(date.min).to_numpy(), side="left")
        last = np.searchsorted(days, self.spells["end"].fill_null(date.max).to_numpy(), side="left")
        member_days = self.spells.select("symbol", "sector", position=pl.int_ranges(pl.Series(first), pl.Series(last)))
        return (
            member_days.explode("position", empty_as_null=False)
            .select("symbol", pl.lit(pl.Series(sessions, dtype=pl.Date())).gather("position").alias("date"), "sector")
            .sort("date", "symbol")
        )

    def digests(self, sessions: Sequence[date]) -> dict[date, str]:
        """A digest of the members of each of ascending `sessions`: two are equal exactly if the members are."""
        turns = pl.concat([self.spells["start"], self.spells["end"]]).drop_nulls().unique().sort().to_numpy()
        stretch = np.searchsorted(turns, np.array(sessions, dtype="datetime64[D]"), side="right")
        # Members are the same from one turn to the next.
        first_of = {int(number): session for number, session in reversed(list(zip(stretch, sessions, strict=True)))}
        members = self.membership(sorted(first_of.values())).group_by("date").agg("symbol")
        made = {day: _digest(symbols) for day, symbols in members.iter_rows()}
        return {
            session: made.get(first_of[int(number)], _digest([]))
            for number, session in zip(stretch, sessions, strict=True)
        }

    def sector_of(self, symbol: str) -> str | None:
        """The sector of the symbol's latest spell; None if unknown. `InvalidInput` if it never was a member."""
        symbol = normalise_symbol(symbol)
        if symbol not in self._sectors:
            raise InvalidInput(f"{symbol} never was a member of the universe {self.name!r}; check its spelling")
        return self._sectors[symbol]

    def sectors(self) -> list[str]:
        """The known sectors, in alphabetical order."""
        return self.spells["sector"].drop_nulls().unique().sort().to_list()

    def industries(self) -> list[str]:
        """The known names of industries, in alphabetical order."""
        return self.spells["industries"].explode().drop_nulls().unique().sort().to_list()

    def restricted_to_sector(self, sector: str) -> "Universe":
        """The part of this universe in one sector, named as the data name it but for upper and lower case."""
        name = self._known("sector", sector, self.sectors())
        return self._restricted_to(name, pl.col("sector") == name)

    def restricted_to_industry(self, industry: str) -> "Universe":
        """The part of this universe in one industry, named as the data name it but for upper and lower case."""
        name = self._known("industry", industry, self.industries())
        return self._restricted_to(name, pl.col("industries").list.contains(name).fill_null(False))

    def _known(self, what: str, given: str, names: list[str]) -> str:
        known = {name.casefold(): name for name in names}
        if given.casefold() not in known:
            listing = ", ".join(names[:_SHOWN]) or f"none, because its list has no {what} column"
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise InvalidInput(f"{what} {given!r} is unknown in the universe {self.name!r}; known: {listing}{more}")
        return known[given.casefold()]

    def _restricted_to(self, part: str, chosen: pl.Expr) -> "Universe":
        return replace(self, name=f"{self.name}: {part}", spells=self.spells.filter(chosen))

    @cached_property
    def _sectors(self) -> dict[str, str | None]:
        return dict(self.spells.select("symbol", "sector").iter_rows())

    def _overlapping(self, first: date, last: date) -> list[str]:
        began = pl.col("start").is_null() | (pl.col("start") <= last)
        lasted = pl.col("end").is_null() | (pl.col("end") > first)
        return self.spells.filter(began & lasted)["symbol"].unique().sort().to_list()


_SHOWN = 40


def _digest(symbols: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(symbols)).encode()).hexdigest()[:16]


def from_symbols(symbols: Iterable[str], name: str = "symbols") -> Universe:
    """A hand-picked list: always members, and never point in time, since whoever picked them knew how they fared."""
    listed = sorted({normalise_symbol(symbol) for symbol in symbols})
    if not listed:
        raise InvalidInput("the list of symbols is empty; name at least one")
    always = {"symbol": listed, "start": None, "end": None, "sector": None, "industries": None}
    caveat = "hand-picked symbols, chosen with today's knowledge"
    return Universe(name, False, pl.DataFrame(always, schema=SPELLS_SCHEMA), caveat)


def from_spells(
    name: str,
    spells: pl.DataFrame,
    *,
    point_in_time: bool,
    caveat: str | None,
    point_in_time_since: date | None = None,
) -> Universe:
    """A universe of `spells` (`SPELLS_SCHEMA`, in any order): overlapping or touching ones of one symbol are merged.

    Raises `InvalidInput` for a spell that does not end after its start, and for overlapping ones of different sectors.
    """
    backwards = spells.filter(pl.col("end") <= pl.col("start"))
    if backwards.height:
        row = backwards.row(0, named=True)
        raise InvalidInput(
            f"universe {name!r}: the spell of {row['symbol']} from {row['start']} to {row['end']} does not end after "
            "its start; the end date is the first day out"
        )
    return Universe(name, point_in_time, _merged(name, spells), caveat, point_in_time_since)


def spells_of_snapshots(snapshots: pl.DataFrame) -> pl.DataFrame:
    """Spells (`SPELLS_SCHEMA`) of dated lists: the members of each are members until the next list, the last for good.

    `snapshots` has one row per list and member: `date` (the first day that the list is in force), `symbol`, `sector`
    and `industries`. A sector that differs from one list to the next begins another spell.
    """
    dates = snapshots["date"].unique().sort()
    order = pl.DataFrame({"date": dates, "until": dates.shift(-1), "position": pl.arange(len(dates), eager=True)})
    rows = snapshots.join(order, on="date").sort("symbol", "position")
    # Written out, because lists cannot be compared with their neighbour as they are.
    rows = rows.with_columns(group=pl.col("industries").list.join("\0"))
    same = [pl.col(name).eq_missing(pl.col(name).shift(1)) for name in ("symbol", "sector", "group")]
    goes_on = pl.all_horizontal(*same, pl.col("position") == pl.col("position").shift(1) + 1).fill_null(False)
    return (
        rows.with_columns(spell=(~goes_on).cum_sum())
        .group_by("spell", maintain_order=True)
        .agg(
            pl.col("symbol").first(),
            start=pl.col("date").first(),
            end=pl.col("until").last(),
            sector=pl.col("sector").first(),
            industries=pl.col("industries").first(),
        )
        .select(pl.col(name).cast(kind) for name, kind in SPELLS_SCHEMA.items())
    )


def _merged(name: str, spells: pl.DataFrame) -> pl.DataFrame:
    """The spells by symbol and start, with overlapping or touching ones of one symbol made one."""
    merged: list[tuple[str, date, date, str | None, list[str] | None]] = []
    # Open ends compare as the end of time, and are turned back into nulls below.
    closed = spells.with_columns(pl.col("start").fill_null(date.min), pl.col("end").fill_null(date.max))
    for symbol, start, end, sector, industries in closed.sort("symbol", "start", "end", "sector").iter_rows():
        if merged and merged[-1][0] == symbol and start <= merged[-1][2]:
            _, first, last, *before = merged[-1]
            if [sector, industries] == before:
                merged[-1] = (symbol, first, max(last, end), sector, industries)
                continue
            if start < last:
                kind, one, other = "sectors", before[0], sector
                if one == other:
                    kind, one, other = "industries", before[1], industries
                raise InvalidInput(
                    f"universe {name!r}: {symbol} is in the {kind} {one} and {other} at once; keep one of them, or "
                    "let the earlier spell end where the later begins"
                )
        merged.append((symbol, start, end, sector, industries))
    frame = pl.DataFrame(merged, schema=SPELLS_SCHEMA, orient="row")
    return frame.with_columns(
        start=pl.when(pl.col("start") > date.min).then("start"), end=pl.when(pl.col("end") < date.max).then("end")
    )
