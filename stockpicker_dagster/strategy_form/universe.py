"""Which stocks are ranked."""

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.sources import PriceSource
from stockpicker_dagster.market.universes import Universe, from_file, from_symbols
from stockpicker_dagster.strategy_form.base import Form, Misfit, under_home


class UniverseForm(Form):
    """Which stocks are ranked: exactly one of `name`, `symbols` and `file`, narrowed by `sector` if given."""

    name: Literal["simulated"] | None = Field(
        None, description="A universe by name; `simulated` is every stock listed on the simulated market on the day."
    )
    symbols: list[str] | None = Field(
        None, description="A list of symbols, member on every day; chosen with today's knowledge."
    )
    file: Path | None = Field(
        None,
        description="A CSV or Parquet file of symbols, or of membership spells (`ticker`, `start_date`, `end_date`: "
        "the first day out, blank while a member); a relative path starts at the state folder.",
    )
    sector: str | None = Field(None, description="Only the members of this sector.")

    @field_validator("symbols")
    @classmethod
    def _enough_to_rank(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and len(set(value)) < 2:
            raise ValueError(f"the symbols {value} cannot be ranked against each other; give at least two")
        return value

    def _agree(self) -> None:
        given = [choice for choice in ("name", "symbols", "file") if getattr(self, choice) is not None]
        if len(given) != 1:
            raise Misfit(
                f"a universe is exactly one of name, symbols and file, and {' and '.join(given) or 'none'} was given"
            )
        if self.sector is not None and self.symbols is not None:
            raise Misfit(f"sector {self.sector!r} cannot narrow a list of symbols; list only its symbols", "sector")

    def build(self, source: PriceSource, through: date) -> Universe:
        """The universe as known after the close of `through`. Raises `InvalidInput` where its file cannot be read."""
        if self.symbols is not None:
            universe = from_symbols(self.symbols)
        elif self.file is not None:
            universe = from_file(under_home(self.file))
        else:
            universe = simulated_universe(source, through)
        return universe.restricted_to_sector(self.sector) if self.sector else universe


def simulated_universe(source: PriceSource, through: date) -> Universe:
    """Every stock that the simulated market had listed by `through`."""
    from stockpicker_dagster.market.sources.simulated import SimulatedMarket

    if not isinstance(source, SimulatedMarket):
        raise InvalidInput(f"universe 'simulated' needs prices from source simulated, not {source.kind!r}")
    return source.universe(through)
