"""Every kind of price source over one invented market: what the conformance suite is run on.

Each entry of `SERVED` makes a source that serves a `Market`, however its vendor would: from a file, restated, or over
HTTP on loopback.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stockpicker_dagster.market.sources import PriceSource
from stockpicker_dagster.market.sources.alpaca import AlpacaSource
from stockpicker_dagster.market.sources.alpaca_api import DATA_URL
from stockpicker_dagster.market.sources.chained import ChainedSource
from stockpicker_dagster.market.sources.files import FilesSource
from stockpicker_dagster.market.sources.yahoo import YahooSource
from stockpicker_dagster.market.sources.yahoo_download import URL as YAHOO_URL
from stockpicker_dagster_tests.market.sources import alpaca_server, yahoo_server
from stockpicker_dagster_tests.market.sources.invented_market import START, Market

NOW = datetime(2022, 11, 1, 12, tzinfo=UTC)

Serve = Callable[[Market, Path], Any]


@contextmanager
def files_as_traded(market: Market, folder: Path) -> Iterator[PriceSource]:
    yield _files("mine", market.rows, folder, "as_traded")


@contextmanager
def files_split_adjusted(market: Market, folder: Path) -> Iterator[PriceSource]:
    yield _files("restated", market.split_adjusted(), folder, "split_adjusted")


@contextmanager
def alpaca(market: Market, folder: Path) -> Iterator[PriceSource]:
    del folder
    with alpaca_server.alpaca(alpaca_server.bars_of(market.rows), alpaca_actions(market)) as server:
        server.page = 700
        server.now = lambda: NOW
        server.quota = 100_000
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv(DATA_URL, server.url)
            for name, value in alpaca_server.KEYS.items():
                environment.setenv(name, value)
            yield AlpacaSource("alpaca", START, now=lambda: NOW, sleep=lambda seconds: None)


@contextmanager
def yahoo(market: Market, folder: Path) -> Iterator[PriceSource]:
    del folder
    companies = yahoo_server.companies_of(market.rows.drop("dividend", "split_ratio"))
    for symbol, day, dividend, ratio in market.events.iter_rows():
        if dividend:
            companies[symbol].dividends[day] = dividend
        if ratio != 1:
            companies[symbol].splits[day] = (ratio, 1.0)
    with yahoo_server.yahoo_server(companies, NOW) as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv(YAHOO_URL, server.url)
        yield YahooSource("yahoo", START, now=lambda: NOW)


@contextmanager
def chain(market: Market, folder: Path) -> Iterator[PriceSource]:
    """Files with holes of all shapes, filled by Alpaca."""
    number = pl.col("date").dt.ordinal_day() + pl.col("symbol").str.len_chars() * 3
    holes = (number % 7 == 0) | (pl.col("symbol") == "REV") | (pl.col("date") > date(2022, 9, 1))
    with ExitStack() as stack:
        second = stack.enter_context(alpaca(market, folder))
        first = _files("mine", market.rows.filter(~holes), folder, "as_traded")
        yield ChainedSource("both", [first, second])


SERVED: dict[str, Serve] = {
    "files_as_traded": files_as_traded,
    "files_split_adjusted": files_split_adjusted,
    "yahoo": yahoo,
    "alpaca": alpaca,
    "chain": chain,
}


def alpaca_actions(market: Market) -> dict[str, list[dict[str, Any]]]:
    """The market's events as Alpaca's corporate actions."""
    return alpaca_server.actions_of(market.events.rename({"ex_date": "date"}))


def _files(name: str, rows: pl.DataFrame, folder: Path, basis: Any) -> FilesSource:
    path = folder / f"{name}-{rows.height}-{rows['close'].sum():.2f}.parquet"
    rows.write_parquet(path)
    return FilesSource(name, path, basis, START)
