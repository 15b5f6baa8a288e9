"""Where prices come from."""

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.sources import PriceSource
from stockpicker_dagster.strategy_form.base import CALENDAR, Form, Misfit, check_name, under_home


class PricesForm(Form):
    """Where prices come from. Strategies that name one source share its prices, and must agree on all its settings."""

    source: Literal["simulated", "files"] = Field(
        "simulated", description="`simulated`: an invented market, labelled so everywhere; `files`: your own files."
    )
    name: str | None = Field(None, description="The source's name in the lake; its kind by default.")
    start: date = Field(date(2020, 11, 2), description="First session kept.")
    path: Path | None = Field(
        None,
        description="For files: one Parquet or CSV file, or a folder of them; a relative path starts at the state "
        "folder.",
    )
    basis: Literal["as_traded", "split_adjusted"] | None = Field(
        None, description="For files: whether prices are as traded that day, or restated for later splits."
    )
    stocks: int = Field(100, ge=10, le=3000, description="For simulated: about how many stocks are listed at a time.")
    seed: int = Field(7, ge=0, description="For simulated: the number that fixes the whole market.")

    @field_validator("name")
    @classmethod
    def _name_fits(cls, value: str | None) -> str | None:
        if value is not None:
            check_name(value, "a price source")
        return value

    @field_validator("start")
    @classmethod
    def _start_is_a_session(cls, value: date) -> date:
        calendar = trading_calendar(CALENDAR)
        if not calendar.is_session(value):
            raise ValueError(f"start {value} is no session; the next one is {calendar.next_session(value)}")
        return value

    def _agree(self) -> None:
        if self.source == "files" and (self.path is None or self.basis is None):
            raise Misfit(
                "source files needs a path and a basis (as_traded, or split_adjusted as most downloads are), "
                f"and path is {str(self.path) if self.path else 'missing'!r}, basis is {self.basis or 'missing'!r}"
            )
        other, foreign = ("simulated", ("stocks", "seed")) if self.source == "files" else ("files", ("path", "basis"))
        for field in foreign:
            if field in self.model_fields_set and (given := getattr(self, field)) is not None:
                raise Misfit(
                    f"{field} {str(given)!r} belongs to source {other}, not to {self.source}; leave it out", field
                )

    @property
    def key(self) -> str:
        """The name under which the lake keeps this source."""
        return self.name or self.source

    @property
    def split_adjusted(self) -> bool:
        """Whether the price level knows later splits."""
        return self.basis == "split_adjusted"

    def build(self) -> PriceSource:
        """The source itself; a file is opened only when prices are asked for."""
        from stockpicker_dagster.market.sources.files import FilesSource
        from stockpicker_dagster.market.sources.simulated import simulated_market

        if self.source == "simulated":
            return simulated_market(self.key, self.start, self.stocks, self.seed)
        assert self.path is not None
        assert self.basis is not None
        return FilesSource(self.key, under_home(self.path), self.basis, self.start)
