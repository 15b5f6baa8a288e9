"""Universes known by name: which there are, how many members each has, and the lists that come with the software.

The lists are today's, from the package `pytickersymbols`. Newer ones from the network are a matter of `refresh`, those
that are kept one of `snapshots`.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.universes.member_tables import MEMBERS_SCHEMA
from stockpicker_dagster.market.universes.symbols import normalise_symbol

ListedName = Literal["sp100", "sp500", "russell3000"]
LISTED_NAMES: tuple[ListedName, ...] = get_args(ListedName)

GICS_SECTORS = (
    "Communication Services",
    "Consumer Discretionary",
    "Consumer Staples",
    "Energy",
    "Financials",
    "Health Care",
    "Industrials",
    "Information Technology",
    "Materials",
    "Real Estate",
    "Utilities",
)

_NARROWER = {
    frozenset({"Energy", "Utilities"}): "Utilities",
    frozenset({"Financials", "Real Estate"}): "Real Estate",
}
"""Other classifications file power suppliers under energy, and property under financials: the GICS sector of two."""


@dataclass(frozen=True)
class ListedUniverse:
    """A universe that somebody publishes a list of.

    `sizes` is the least and the largest number of members that its list can have without something being wrong with it;
    `public_list` the address of the list, `packaged_as` its name in the package, None if it does not carry it.
    """

    title: str
    sizes: tuple[int, int]
    public_list: str
    packaged_as: str | None


LISTED: dict[ListedName, ListedUniverse] = {
    "sp100": ListedUniverse("S&P 100", (95, 110), "https://en.wikipedia.org/wiki/S%26P_100", "S&P 100"),
    "sp500": ListedUniverse(
        "S&P 500", (480, 520), "https://en.wikipedia.org/wiki/List_of_S%26P_500_companies", "S&P 500"
    ),
    "russell3000": ListedUniverse(
        "Russell 3000",
        (2200, 3300),
        "https://www.ishares.com/us/products/239714/ishares-russell-3000-etf/1467271812596.ajax"
        "?fileType=csv&fileName=IWV_holdings&dataType=fund",
        None,
    ),
}


@dataclass(frozen=True)
class MemberList:
    """Today's members (`MEMBERS_SCHEMA`, by symbol) and where the list comes from, in words for a report."""

    members: pl.DataFrame
    origin: str


def packaged_list(name: ListedName) -> MemberList:
    """The list that the package `pytickersymbols` carries, labelled with the package's version.

    The package gives every stock several names of industries, from several classifications. Its sector is the one of
    `GICS_SECTORS` among them, null where it cannot be told which; `industries` are the others.
    Raises `InvalidInput` where the package has no such list.
    """
    listed = LISTED[name]
    if listed.packaged_as is None:
        raise InvalidInput(
            f"no list of the {listed.title} comes with the software and none is stored: run `stockpicker data universe "
            f"{name}` where there is a network, or name the fund's published file in the strategy, "
            f"`universe: {{name: {name}, file: IWV_holdings.csv}}`"
        )
    from pytickersymbols import PyTickerSymbols, __version__

    rows = [
        (normalise_symbol(stock["symbol"]), stock["name"], *_grouped(stock["industries"]))
        for stock in PyTickerSymbols().get_stocks_by_index(listed.packaged_as)
    ]
    members = pl.DataFrame(rows, schema=MEMBERS_SCHEMA, orient="row").unique("symbol", keep="first").sort("symbol")
    return MemberList(members, f"pytickersymbols {__version__}")


def _grouped(industries: list[str]) -> tuple[str | None, list[str]]:
    sectors = frozenset(industries) & frozenset(GICS_SECTORS)
    sector = min(sectors) if len(sectors) == 1 else _NARROWER.get(sectors)
    return sector, sorted(set(industries) - {sector})
