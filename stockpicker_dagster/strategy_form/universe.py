"""Which stocks are ranked.

The form says which universe is meant and puts it together from the list, the lake and the source that the asset hands
in; how lists and prices decide membership is in `market.universes`.
"""

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field, field_validator

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.market.identity import with_identities
from stockpicker_dagster.market.identity_records import identities_in_force
from stockpicker_dagster.market.sources import PriceSource
from stockpicker_dagster.market.universes import (
    LISTED_NAMES,
    LiquidityFilter,
    ListedName,
    TopRule,
    Universe,
    from_file,
    from_symbols,
    keep_first_list,
    liquid_members,
    listed_universe,
    top_by_dollar_volume,
)
from stockpicker_dagster.market.universes.dollar_volume import Cadence, ReadPrices
from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.strategy_form.base import Form, Misfit, under_home

_CHOICES = ("name", "symbols", "file", "top")


class UniverseForm(Form):
    """Which stocks are ranked: one of `name`, `symbols`, `file` and `top`, and what narrows it."""

    name: Literal["simulated", ListedName] | None = Field(
        None,
        description="A universe by name: `sp100`, `sp500` or `russell3000`, from stored lists that are refreshed every "
        "week, or from `file` where that is given as well; `simulated` is every stock listed on the simulated market "
        "on the day.",
    )
    symbols: list[str] | None = Field(
        None, description="A list of symbols, member on every day; chosen with today's knowledge."
    )
    file: Path | None = Field(
        None,
        description="A CSV or Parquet file of symbols, of membership spells (`ticker`, `start_date`, `end_date`: the "
        "first day out, blank while a member), or of dated lists (`date`, `symbol`: each list holds until the next); a "
        "relative path starts at the state folder.",
    )
    top: int | None = Field(
        None,
        ge=2,
        le=10_000,
        description="As many stocks of the largest dollar volume: the median over the 63 sessions before the day on "
        "which they are chosen.",
    )
    by: Literal["dollar_volume"] | None = Field(None, description="For top: what decides; there is one choice.")
    of: ListedName | Path | None = Field(
        None,
        description="For top: a universe by name, or a file, to choose from; by default every stock that the price "
        "source has.",
    )
    rebalance: Cadence | None = Field(
        None, description="For top: how often the stocks are chosen anew; quarterly by default."
    )
    sector: str | None = Field(None, description="Only the members of this sector.")
    industry: str | None = Field(None, description="Only the members of this industry.")
    min_price: float | None = Field(
        None, gt=0, description="Only members whose close, as traded that day, is at least this (currency)."
    )
    min_dollar_volume: float | None = Field(
        None,
        gt=0,
        description="Only members whose median dollar volume over the last 21 sessions, the day included, is at least "
        "this (currency a session).",
    )

    @field_validator("symbols")
    @classmethod
    def _enough_to_rank(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and len(set(value)) < 2:
            raise ValueError(f"the symbols {value} cannot be ranked against each other; give at least two")
        return value

    @field_validator("of")
    @classmethod
    def _name_or_file(cls, value: str | Path | None) -> str | Path | None:
        if isinstance(value, Path) and value.suffix.lower() not in (".csv", ".parquet"):
            raise ValueError(
                f"{str(value)!r} is neither a universe by name nor a file; allowed: {', '.join(LISTED_NAMES)}, or a "
                ".csv or .parquet file"
            )
        return value

    def _agree(self) -> None:
        given = [choice for choice in _CHOICES if getattr(self, choice) is not None]
        if len(given) != 1 and not (given == ["name", "file"] and self.name != "simulated"):
            raise Misfit(
                "a universe is exactly one of name, symbols, file and top (a listed name may have a file beside it), "
                f"and {' and '.join(given) or 'none'} was given"
            )
        for field in ("by", "of", "rebalance"):
            if self.top is None and (value := getattr(self, field)) is not None:
                raise Misfit(f"{field} {str(value)!r} belongs to top, which is not given; leave it out", field)
        for field in ("sector", "industry"):
            value = getattr(self, field)
            if value is not None and self.symbols is not None:
                raise Misfit(f"{field} {value!r} cannot narrow a list of symbols; list only its symbols", field)
            if value is not None and self.top is not None and self.of is None:
                raise Misfit(
                    f"{field} {value!r} cannot narrow every stock of the price source, whose {field} it does not say; "
                    "name a universe to choose from with of",
                    field,
                )

    @property
    def listed(self) -> ListedName | None:
        """The named universe whose stored lists decide; None where a file, prices or symbols do."""
        name = self.of if self.top is not None else self.name
        return next((known for known in LISTED_NAMES if known == name and self.file is None), None)

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        named = [self.file, self.of if isinstance(self.of, Path) else None]
        return [under_home(path) for path in named if path is not None]

    @property
    def liquidity(self) -> LiquidityFilter:
        """What the members of a day have to pass with that day's prices."""
        return LiquidityFilter(self.min_price, self.min_dollar_volume)

    @property
    def needs_prices(self) -> bool:
        """Whether stored prices decide who is a member."""
        return self.top is not None or self.liquidity.any

    @property
    def says_sectors(self) -> bool:
        """Whether the members may come with a sector; whether a file's do shows when it is read."""
        return self.symbols is None and (self.top is None or self.of is not None)

    def build(self, source: PriceSource, span: tuple[date, date], lake: Lake, calendar: TradingCalendar) -> Universe:
        """The universe on the days of `span`, first and last included, as known after the close of the last.

        Members are named by the ids that they have in the source's stored rows. What `min_price` and
        `min_dollar_volume` leave of it is said by `narrowed`. Raises `InvalidInput` where a list or file cannot be
        read, `MissingDays` where prices that decide are not stored.
        """
        candidates = self._candidates(source, span[1], lake)
        if candidates is not None:
            candidates = with_identities(candidates, identities_in_force(lake, source.name))
        if self.top is None:
            assert candidates is not None
            return candidates
        rule = TopRule(self.top, self.rebalance or "quarterly")
        return top_by_dollar_volume(rule, span, prices_of(source, lake), calendar, source.start, candidates)

    def narrowed(
        self, members: pl.DataFrame, source: PriceSource, lake: Lake, calendar: TradingCalendar
    ) -> pl.DataFrame:
        """The rows of `members` (`symbol`, `date`) that pass `min_price` and `min_dollar_volume` on their day."""
        return liquid_members(members, self.liquidity, prices_of(source, lake), calendar, source.start)

    def symbols_ever(self, source: PriceSource, last: date, lake: Lake) -> list[str] | None:
        """Every ticker that can be a member's up to `last`, whose prices are needed; None: all that the source has."""
        candidates = self._candidates(source, last, lake)
        return None if candidates is None else candidates.symbols_ever(source.start, last)

    def keep_list(self, lake: Lake, now: datetime) -> None:
        """Stores the list that the software comes with, if a named universe has none yet.

        What a first run was made with has to be there when its days are made again. Raises `InvalidInput` where there
        is no such list.
        """
        if self.listed is not None:
            keep_first_list(lake, self.listed, now)

    def _candidates(self, source: PriceSource, through: date, lake: Lake) -> Universe | None:
        """The universe before prices decide; None for every stock of the source."""
        if self.symbols is not None:
            return from_symbols(self.symbols)
        if self.listed is not None:
            universe = listed_universe(lake, self.listed)
        elif self.files:
            universe = from_file(self.files[0], self.name)
        elif self.top is not None:
            return None
        else:
            universe = simulated_universe(source, through)
        if self.sector is not None:
            universe = universe.restricted_to_sector(self.sector)
        return universe if self.industry is None else universe.restricted_to_industry(self.industry)


def prices_of(source: PriceSource, lake: Lake) -> ReadPrices:
    """Reads the stored prices of a source."""

    def read(sessions: Sequence[date]) -> pl.LazyFrame:
        return lake.scan(f"{source.name}/prices", sessions)

    return read


def simulated_universe(source: PriceSource, through: date) -> Universe:
    """Every stock that the simulated market had listed by `through`."""
    from stockpicker_dagster.market.sources.simulated import SimulatedMarket

    if not isinstance(source, SimulatedMarket):
        raise InvalidInput(f"universe 'simulated' needs prices from source simulated, not {source.kind!r}")
    return source.universe(through)
