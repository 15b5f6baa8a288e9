"""Tables of members as others publish them: CSV, Parquet, a web page's table, or a fund's list of holdings.

A table comes out with the columns used here, whatever it calls them, and with a count of the rows that name no ticker
that could be traded. What its rows mean over time is decided by whoever asked for them.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.universes.symbols import from_fund_spelling, normalise_symbol

MEMBERS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "name": pl.String(),
    "sector": pl.String(),
    "industries": pl.List(pl.String()),
}
"""One row per member; everything but `symbol` is null where the table does not say it."""

_ALIASES = {
    "symbol": ("symbol", "ticker", "ticker symbol"),
    "name": ("name", "security", "company", "company name"),
    "sector": ("sector", "gics sector"),
    "industries": ("industry", "gics sub-industry", "gics industry"),
    "start": ("start_date", "start"),
    "end": ("end_date", "end"),
    "date": ("date", "snapshot_date", "as_of"),
}
_ASSET_CLASS, _EXCHANGE = "asset class", "exchange"
_UNLISTED = ("no market", "non-nms")


@dataclass(frozen=True)
class MemberTable:
    """The rows of a table that name a ticker: the columns of `MEMBERS_SCHEMA`, `start`, `end` and `date` as text.

    `given` holds which of these columns the table had, `left_out` how many rows named nothing that could be traded, and
    `columns` the table's own headers.
    """

    rows: pl.DataFrame
    given: frozenset[str]
    left_out: int
    columns: tuple[str, ...]


def read_members(content: bytes, origin: str) -> MemberTable:
    """The table in `content`: Parquet, CSV (with or without lines before its header), or a web page.

    Rows of a fund that are cash, futures or unlisted rights, and rows without a ticker, are left out and counted.
    Raises `InvalidInput`, naming `origin` and what is wrong, where no table of tickers can be found.
    """
    table = _parsed(content, origin)
    columns = {name: _find(table, aliases) for name, aliases in _ALIASES.items()}
    headers = tuple(table.columns)
    if columns["symbol"] is None:
        raise InvalidInput(f"{origin} has no column symbol or ticker; found: {', '.join(headers)}")
    if table.is_empty():
        raise InvalidInput(f"{origin} has no rows; list at least one symbol")
    tradable = table.filter(_tradable(table, columns["symbol"]))
    if tradable.is_empty():
        raise InvalidInput(f"no row of {origin} names a ticker in its column {columns['symbol']!r}; list at least one")
    of_a_fund = _find(table, (_EXCHANGE,)) is not None and columns["name"] is not None
    spelled = from_fund_spelling if of_a_fund else normalise_symbol
    texts = {name: _texts(tradable, column) for name, column in columns.items()}
    symbols = texts.pop("symbol")
    assert symbols is not None
    industries = texts.pop("industries")
    rows = pl.DataFrame({"symbol": [spelled(symbol) for symbol in symbols]}, schema={"symbol": pl.String}).with_columns(
        *[pl.lit(text, dtype=pl.String).alias(name) for name, text in texts.items()],
        industries=_in_lists(industries),
    )
    given = frozenset(name for name, column in columns.items() if column is not None)
    return MemberTable(rows, given, table.height - tradable.height, headers)


def _parsed(content: bytes, origin: str) -> pl.DataFrame:
    """The table as text, in the columns that it has."""
    try:
        if content.startswith(b"PAR1"):
            return pl.read_parquet(io.BytesIO(content))
        text = content.decode("utf-8-sig")
        if text.lstrip()[:1] == "<":
            return _web_table(text, origin)
        return pl.read_csv(io.StringIO(_without_preamble(text)), infer_schema=False)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{origin} cannot be read as a table in CSV, Parquet or HTML: {error}") from error


def _without_preamble(text: str) -> str:
    """A fund's file begins with lines about the fund, and ends with a notice after a line without a comma."""
    lines = text.replace("\xa0", " ").splitlines()
    names = set(_ALIASES["symbol"])
    header = next((i for i, line in enumerate(lines) if names & {cell.casefold() for cell in _cells(line)}), 0)
    end = len(lines)
    if header > 0:
        end = next((i for i in range(header + 1, len(lines)) if not lines[i].replace('"', "").strip(" ,")), end)
    return "\n".join(lines[header:end])


def _cells(line: str) -> list[str]:
    return [cell.strip(' "') for cell in line.split(",")]


def _web_table(page: str, origin: str) -> pl.DataFrame:
    """The first table of a page that has a column of tickers."""
    from bs4 import BeautifulSoup

    for table in BeautifulSoup(page, "html.parser").find_all("table"):
        rows = [[cell.get_text(" ", strip=True) for cell in row.find_all(["th", "td"])] for row in table.find_all("tr")]
        headers = [header.casefold() for header in rows[0]] if rows else []
        if set(headers) & set(_ALIASES["symbol"]) and len(set(headers)) == len(headers):
            whole = [row for row in rows[1:] if len(row) == len(headers)]
            return pl.DataFrame(whole, schema=dict.fromkeys(rows[0], pl.String), orient="row")
    raise InvalidInput(f"{origin} is a page without a table that has a column symbol or ticker")


def _find(table: pl.DataFrame, aliases: Sequence[str]) -> str | None:
    by_name = {column.strip().casefold(): column for column in table.columns}
    return next((by_name[alias] for alias in aliases if alias in by_name), None)


def _tradable(table: pl.DataFrame, symbol: str) -> pl.Expr:
    """Funds list cash and rights as blank or `-`, derivatives as another class, and what left as having no market."""
    tradable = ~pl.col(symbol).cast(pl.String).str.strip_chars().fill_null("").is_in(["", "-", "--"])
    if asset_class := _find(table, (_ASSET_CLASS,)):
        tradable &= pl.col(asset_class).str.strip_chars().str.to_lowercase() == "equity"
    if exchange := _find(table, (_EXCHANGE,)):
        lower = pl.col(exchange).cast(pl.String).str.to_lowercase().fill_null("")
        tradable &= ~pl.any_horizontal([lower.str.starts_with(prefix) for prefix in _UNLISTED])
    return tradable


def _texts(table: pl.DataFrame, column: str | None) -> pl.Series | None:
    if column is None:
        return None
    texts = table[column].cast(pl.Date) if table[column].dtype.is_temporal() else table[column]
    return texts.cast(pl.String).str.strip_chars().replace("", None).replace("-", None)


def _in_lists(texts: pl.Series | None) -> pl.Expr:
    """Each text as a list of one, null as null."""
    if texts is None:
        return pl.lit(None, dtype=MEMBERS_SCHEMA["industries"])
    return pl.lit(pl.Series([None if text is None else [text] for text in texts], dtype=MEMBERS_SCHEMA["industries"]))
