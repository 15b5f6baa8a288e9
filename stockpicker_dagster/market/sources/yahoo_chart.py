"""What one answer of Yahoo's chart endpoint says, and its figures as they were traded.

Yahoo restates prices, volumes and dividends for every later split. An answer lists its own splits, so that it can be
undone from itself alone, whenever it was given. Asking for answers is in `yahoo_download`, judging rows elsewhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

FIGURES = ("open", "high", "low", "close", "volume")
ROWS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    **dict.fromkeys(FIGURES, pl.Float64()),
}
EVENTS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "ex_date": pl.Date(),
    "known_at": pl.Date(),
    "dividend": pl.Float64(),
    "split_ratio": pl.Float64(),
}
"""Dividend per share before a split of the same day, 0.0 if none; split_ratio new per old, 1.0 if none."""

_LIVE_WITHIN = 12 * 3600
"""The live quote follows the row of its own session within hours; the row of the next session within a day or more."""


class Refused(Exception):
    """Yahoo says that it has nothing under this symbol; asking again will not change it."""


class Unusable(Exception):
    """The answer is not what Yahoo means to say: a page, half an answer, or one that contradicts itself."""


@dataclass(frozen=True)
class Chart:
    """One symbol's daily rows as Yahoo restates them today; times are seconds since 1970, ascending."""

    symbol: str
    currency: str | None
    time_zone: str
    first_trade: int | None
    last_trade: int | None
    times: pl.Series
    quotes: Mapping[str, pl.Series]
    dividends: Sequence[tuple[int, float]]
    splits: Sequence[tuple[int, float]]

    def day(self, moment: int) -> date:
        """The exchange's date of a moment."""
        return datetime.fromtimestamp(moment, UTC).astimezone(ZoneInfo(self.time_zone)).date()


def read_chart(symbol: str, body: bytes, spelled: str | None = None) -> Chart:
    """The chart in an answer about `symbol`, as Yahoo has it `spelled`.

    Raises `Refused` where Yahoo has none, `Unusable` for anything else.
    """
    try:
        answer = json.loads(body)["chart"]
        if error := answer.get("error"):
            raise Refused(str(error.get("description") or error.get("code")))
        return _chart(symbol, answer["result"][0], spelled or symbol)
    except (ValueError, LookupError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise Unusable(_what_it_is(body)) from error


def _what_it_is(body: bytes) -> str:
    start = body[:200].lstrip().lower()
    if not start:
        return "an empty answer"
    return "an HTML page" if start.startswith(b"<") else "an incomplete answer"


def _chart(symbol: str, result: Mapping[str, Any], spelled: str) -> Chart:
    meta = result["meta"]
    if meta["symbol"] != spelled:
        raise Refused(f"Yahoo answers about {meta['symbol']} instead")
    if meta["dataGranularity"] != "1d":
        raise Unusable(f"rows of {meta['dataGranularity']} instead of days")
    times = result.get("timestamp") or []
    quote = result["indicators"]["quote"][0] if times else {}
    quotes = {name: quote[name] for name in FIGURES} if times else {name: [] for name in FIGURES}
    if any(len(column) != len(times) for column in quotes.values()):
        raise Unusable("columns of different length")
    ZoneInfo(meta["exchangeTimezoneName"])
    kept = len(times) - _has_live_quote(times, meta)
    events = result.get("events") or {}
    # Capital gains of a fund go to its holders as dividends do.
    paid = [*(events.get("dividends") or {}).values(), *(events.get("capitalGains") or {}).values()]
    splits = (events.get("splits") or {}).values()
    return Chart(
        symbol,
        meta.get("currency"),
        meta["exchangeTimezoneName"],
        meta.get("firstTradeDate"),
        meta.get("regularMarketTime"),
        pl.Series(times[:kept], dtype=pl.Int64()),
        {name: pl.Series(column[:kept], dtype=pl.Float64(), strict=False) for name, column in quotes.items()},
        [(event["date"], float(event["amount"])) for event in paid],
        [(event["date"], _ratio(event)) for event in splits],
    )


def _ratio(split: Mapping[str, Any]) -> float:
    ratio = float(split["numerator"]) / float(split["denominator"])
    if ratio <= 0.0:
        raise Unusable(f"a split of {split['numerator']}:{split['denominator']}")
    return ratio


def _has_live_quote(times: Sequence[int], meta: Mapping[str, Any]) -> bool:
    """Whether the last row repeats the row before it, as the quote of the last trade of the same session."""
    return len(times) > 1 and times[-1] == meta.get("regularMarketTime") and times[-1] - times[-2] < _LIVE_WITHIN


def as_traded(charts: Sequence[Chart]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(rows in `ROWS_SCHEMA`, events in `EVENTS_SCHEMA`) of charts of one time zone, by symbol and date.

    The restatement for later splits is undone: prices times their ratios, shares by them; a dividend also times a
    split of its own day. Prices are rounded to a cent, under a dollar to 1e-4; dividends to 1e-4; volume to shares. A
    figure that Yahoo does not give is null.
    """
    if not charts:
        return pl.DataFrame(schema=ROWS_SCHEMA), pl.DataFrame(schema=EVENTS_SCHEMA)
    events = _events(charts)
    names = pl.Series([chart.symbol for chart in charts], dtype=pl.String())
    rows = pl.DataFrame(
        {
            "symbol": names.gather(np.repeat(np.arange(len(charts)), [len(chart.times) for chart in charts])),
            "date": _days(pl.concat([chart.times for chart in charts]), charts[0].time_zone),
            **{name: pl.concat([chart.quotes[name] for chart in charts]) for name in FIGURES},
        },
        schema=ROWS_SCHEMA,
    ).sort("symbol", "date", maintain_order=True)
    return _undone(rows, events), events.select(*EVENTS_SCHEMA)


def _events(charts: Sequence[Chart]) -> pl.DataFrame:
    """The events with `splits_from_here`, the product of the ratios of all splits on or after the day."""
    listed = [(chart.symbol, at, amount, 1.0) for chart in charts for at, amount in chart.dividends]
    listed += [(chart.symbol, at, 0.0, ratio) for chart in charts for at, ratio in chart.splits]
    schema = {"symbol": pl.String(), "at": pl.Int64(), "restated": pl.Float64(), "split_ratio": pl.Float64()}
    events = pl.DataFrame(listed, schema, orient="row")
    return (
        events.with_columns(ex_date=_days(events["at"], charts[0].time_zone))
        .group_by("symbol", "ex_date")
        .agg(pl.col("restated").sum(), pl.col("split_ratio").product())
        .sort("symbol", "ex_date")
        .with_columns(splits_from_here=pl.col("split_ratio").cum_prod(reverse=True).over("symbol"))
        .with_columns(
            dividend=(pl.col("restated") * pl.col("splits_from_here")).round(4),
            known_at="ex_date",
        )
    )


def _undone(rows: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    later = events.select("symbol", "ex_date", later_splits="splits_from_here")
    beside = rows.sort("date", maintain_order=True).join_asof(
        later.sort("ex_date"),
        left_on="date",
        right_on="ex_date",
        by="symbol",
        strategy="forward",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    ratio = pl.col("later_splits").fill_null(1.0)
    prices = [_price(pl.col(name) * ratio).alias(name) for name in FIGURES[:4]]
    return beside.select("symbol", "date", *prices, (pl.col("volume") / ratio).round(0)).sort(
        "symbol", "date", maintain_order=True
    )


def _price(restated: pl.Expr) -> pl.Expr:
    # Rounded to 1e-4 first: half a cent would otherwise fall to either side by the noise of Yahoo's single precision,
    # which is another one after every split.
    fine = restated.round(4)
    return pl.when(fine < 1.0).then(fine).otherwise(fine.round(2))


def _days(times: pl.Series, time_zone: str) -> pl.Series:
    moments = times.cast(pl.Int64) * 1000
    return moments.cast(pl.Datetime("ms")).dt.replace_time_zone("UTC").dt.convert_time_zone(time_zone).dt.date()
