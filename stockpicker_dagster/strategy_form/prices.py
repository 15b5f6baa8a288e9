"""Where prices come from: one source, or several of which the next fills what the ones before it lack.

What each source does is in `market.sources`; the form only says which settings belong to which of them.
"""

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator
from pydantic_core import InitErrorDetails

from stockpicker_dagster.market.calendar import TradingCalendar, trading_calendar
from stockpicker_dagster.market.identity import Identities, SymbolChange, read_symbol_changes
from stockpicker_dagster.market.sources import Basis, PriceSource
from stockpicker_dagster.strategy_form.base import CALENDAR, Form, Misfit, check_name, under_home

RealKind = Literal["files", "yahoo", "alpaca"]
SourceKind = Literal["simulated", RealKind]

_KINDS: tuple[str, ...] = get_args(SourceKind)
_BELONGS_TO = {
    "path": ("files",),
    "basis": ("files",),
    "feed": ("alpaca",),
    "currency": ("files", "yahoo"),
    "stocks": ("simulated",),
    "seed": ("simulated",),
}
"""The settings that not every kind of source has, and the kinds that have them."""
_OF_NEW_YORK = {"simulated", "alpaca"}
"""The sources that have stocks of New York's exchanges alone."""


class SourceSettings(Form):
    """The settings of a real source, whether it stands alone or in a list."""

    name: str | None = Field(
        None,
        description="The source's name, in the lake and in the rows that come from it; its kind by default, for a list "
        "the names joined by `_`.",
    )
    path: Path | None = Field(
        None,
        description="For files: one Parquet or CSV file, or a folder of them; a relative path starts at the state "
        "folder.",
    )
    basis: Basis | None = Field(
        None, description="For files: whether prices are as traded that day, or restated for later splits."
    )
    feed: Literal["sip", "iex", "otc"] | None = Field(
        None,
        description="For alpaca: `sip` (default), the trades of all exchanges, which free plans may ask for after 15 "
        "minutes; `iex`, those of one small exchange, whose volumes are a few per cent of the market's; `otc`, "
        "over-the-counter stocks.",
    )
    currency: str | None = Field(
        None,
        pattern="^[A-Za-z]{3}$",
        description="For yahoo, and for files with a column `currency`: the currency that every price must be in, USD "
        "by default; rows in another one are quarantined.",
    )

    @field_validator("name")
    @classmethod
    def _name_fits(cls, value: str | None) -> str | None:
        if value is not None:
            check_name(value, "a price source")
        return value

    def _check_settings(self, kind: str) -> None:
        """Raises `Misfit` for a setting that a source of this kind lacks, or that belongs to another one."""
        for field, owners in _BELONGS_TO.items():
            given = getattr(self, field, None) if field in self.model_fields_set else None
            if given is not None and kind not in owners:
                belongs = f"{field} {str(given)!r} belongs to source {' or '.join(owners)}"
                raise Misfit(f"{belongs}, not to {kind}; leave it out", field)
        if kind == "files" and (self.path is None or self.basis is None):
            raise Misfit(
                "source files needs a path and a basis (as_traded, or split_adjusted as most downloads are), "
                f"and path is {str(self.path) if self.path else 'missing'!r}, basis is {self.basis or 'missing'!r}"
            )


class SourceForm(SourceSettings):
    """One of the sources in a list. A source without settings may be written as its kind alone."""

    source: RealKind = Field(description="`files`: your own files; `yahoo` and `alpaca`: over the network.")

    def _agree(self) -> None:
        self._check_settings(self.source)

    @property
    def key(self) -> str:
        """What rows from this source are marked with."""
        return self.name or self.source


class PricesForm(SourceSettings):
    """Where prices come from. Strategies that name one source share its prices, and must agree on all its settings."""

    source: SourceKind | list[RealKind | SourceForm] = Field(
        "simulated",
        description="`simulated`: an invented market, labelled so everywhere; `files`: your own files; `yahoo`, "
        "`alpaca`: over the network; or a list of these without `simulated`, where the next fills what the ones before "
        "it lack, such as `[yahoo, {source: files, path: mine.csv, basis: as_traded}]`.",
    )
    calendar: str = Field(
        CALENDAR,
        description="For files and yahoo: the exchange that prices are of, by its market identifier code, such as "
        "`XNYS` (New York), `XLON` (London) or `XTKS` (Tokyo); its sessions are the days of everything made from them.",
    )
    symbol_changes: Path | None = Field(
        None,
        description="For all but simulated: a CSV file of changed and re-used tickers with the columns `old`, `new` "
        "and `date`, the first day of the new ticker; a relative path starts at the state folder.",
    )
    start: date = Field(date(2020, 11, 2), description="First session kept.")
    stocks: int = Field(100, ge=10, le=3000, description="For simulated: about how many stocks are listed at a time.")
    seed: int = Field(7, ge=0, description="For simulated: the number that fixes the whole market.")

    @field_validator("source", mode="before")
    @classmethod
    def _kind_or_list(cls, value: Any) -> Any:
        """The kind, or the list with every source as a form. A union by itself would refuse once for each choice."""
        if isinstance(value, list):
            return list(_source_forms(value))
        if value not in _KINDS:
            raise ValueError(f"{value!r} is not allowed; allowed: {_choices(_KINDS)}, or a list of sources")
        return value

    @field_validator("calendar")
    @classmethod
    def _days_follow_from_calendar(cls, value: str) -> str:
        calendar = trading_calendar(value)
        # Refuses what is no exchange of stocks; one exchange under two names would be two settings.
        _ = calendar.daily_cycle
        return calendar.name

    def _agree(self) -> None:
        if self.calendar != CALENDAR and (kinds := sorted(_OF_NEW_YORK & self._kinds)):
            raise Misfit(
                f"calendar {self.calendar!r} does not fit source {kinds[0]}, whose stocks trade in New York; leave it "
                "out, or use files or yahoo",
                "calendar",
            )
        if not self.exchange_calendar.is_session(self.start):
            following = self.exchange_calendar.next_session(self.start)
            raise Misfit(f"start {self.start} is no session; the next one is {following}", "start")
        if self.symbol_changes is not None and self.source == "simulated":
            raise Misfit(
                f"symbol_changes {str(self.symbol_changes)!r} are of real companies, and those of source simulated "
                "keep their symbols; leave it out",
                "symbol_changes",
            )
        if isinstance(self.source, str):
            self._check_settings(self.source)
            return
        for field in _BELONGS_TO:
            if field in self.model_fields_set and (given := getattr(self, field)) is not None:
                raise Misfit(f"{field} {str(given)!r} belongs to one of the listed sources; give it there", field)
        names = [member.key for member in self.chain]
        if len(names) < 2 or len(set(names)) < len(names):
            raise Misfit(f"a list of sources needs two or more of different names, and it names {names}", "source")
        bases = {member.key: member.basis or "as_traded" for member in self.chain}
        if len(set(bases.values())) > 1:
            raise Misfit(
                f"sources of different bases cannot fill each other's gaps ({_pairs(bases)}): a price restated for "
                "later splits beside one as traded is a false return; give all the same basis",
                "source",
            )
        check_name(self.key, "a price source")

    @property
    def chain(self) -> tuple[SourceForm, ...]:
        """The listed sources, the first choice first; empty where one source stands alone."""
        return tuple(member for member in self.source if isinstance(member, SourceForm))

    @property
    def kind(self) -> str:
        """The kind of source, `chain` for a list."""
        return self.source if isinstance(self.source, str) else "chain"

    @property
    def _kinds(self) -> set[str]:
        """The kinds of all sources that rows come from."""
        return {member.source for member in self.chain} or {self.kind}

    @property
    def lists_its_symbols(self) -> bool:
        """Whether all symbols can be asked for without naming them; a vendor over the network has no such list."""
        return self._kinds <= {"simulated", "files"}

    @property
    def exchange_calendar(self) -> TradingCalendar:
        """The sessions that prices have, and everything made from them."""
        return trading_calendar(self.calendar)

    @property
    def key(self) -> str:
        """The name under which the lake keeps this source."""
        if self.name is not None:
            return self.name
        return self.source if isinstance(self.source, str) else "_".join(member.key for member in self.chain)

    @property
    def paths(self) -> list[Path]:
        """The files and folders that prices and changes of symbols are read from."""
        named = [self.path, *(member.path for member in self.chain), self.symbol_changes]
        return [under_home(path) for path in named if path is not None]

    @property
    def split_adjusted(self) -> bool:
        """Whether the price level knows later splits."""
        return "split_adjusted" in (self.basis, *(member.basis for member in self.chain))

    def stated_changes(self) -> tuple[SymbolChange, ...]:
        """What the user's file says about tickers after `start`; before it, each security has one ticker for good."""
        if self.symbol_changes is None:
            return ()
        stated = read_symbol_changes(under_home(self.symbol_changes))
        return tuple(change for change in stated if change.day > self.start)

    def build(self, identities: Identities = Identities()) -> PriceSource:  # noqa: B008 - immutable
        """The source itself; a file is opened, and the network asked, only when prices are.

        `identities` is what tickers mean in the lake that rows are stored in, needed where rows are asked for.
        """
        if self.source == "simulated":
            from stockpicker_dagster.market.sources.simulated import simulated_market

            return simulated_market(self.key, self.start, self.stocks, self.seed)
        if isinstance(self.source, str):
            return _real_source(self, self.source, self.key, self, identities)
        from stockpicker_dagster.market.sources.chained import ChainedSource

        members = [_real_source(member, member.source, member.key, self, identities) for member in self.chain]
        return ChainedSource(self.key, members, self.exchange_calendar)


def _real_source(
    settings: SourceSettings, kind: str, name: str, form: PricesForm, identities: Identities
) -> PriceSource:
    """One source by its own settings and by those that all sources of the form share."""
    start, calendar = form.start, form.exchange_calendar
    if kind == "yahoo":
        from stockpicker_dagster.market.sources.yahoo import YahooSource

        return YahooSource(name, start, calendar, currency=settings.currency or "USD", identities=identities)
    if kind == "alpaca":
        from stockpicker_dagster.market.sources.alpaca import AlpacaSource

        return AlpacaSource(name, start, feed=settings.feed or "sip", identities=identities)
    from stockpicker_dagster.market.sources.files import FilesSource

    assert settings.path is not None
    assert settings.basis is not None
    path = under_home(settings.path)
    currency = settings.currency or "USD"
    return FilesSource(
        name, path, settings.basis, start, calendar, currency=currency, identities=identities, keeps_tail=True
    )


def _source_forms(given: list[Any]) -> Iterator[SourceForm]:
    """Every listed source as a form; a refusal is placed at the setting that it is about."""
    for position, item in enumerate(given):
        if isinstance(item, SourceForm):
            yield item
            continue
        kind = item.get("source") if isinstance(item, dict) else item
        if kind == "simulated":
            raise ValueError("simulated prices cannot stand in a list: invented rows would fill the gaps of real ones")
        if kind is not None and kind not in get_args(RealKind):
            raise ValueError(f"{kind!r} is not allowed in a list of sources; allowed: {_choices(get_args(RealKind))}")
        try:
            yield SourceForm.model_validate({"source": item} if isinstance(item, str) else item)
        except ValidationError as error:
            raise ValidationError.from_exception_data(
                "source",
                [
                    InitErrorDetails(
                        type="value_error",
                        loc=(position, *details["loc"]),
                        input=details["input"],
                        ctx={"error": ValueError(str(details["ctx"]["error"]))},
                    )
                    for details in error.errors()
                ],
            ) from None


def _choices(kinds: tuple[str, ...]) -> str:
    return ", ".join(repr(kind) for kind in kinds)


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in values.items())
