"""The dataset of one model: its training, validation and test tables, and the market data of the same days.

Labels are made here from prices that were known before the model's first use. Before anything is stored, the split is
checked on its days once more, and the tables are searched for leaks. Reading the lake is the caller's work; fitting is
`training.models`.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.market.calendar import TradingCalendar
from stockpicker_dagster.market.prices import PRICES_SCHEMA
from stockpicker_dagster.research.cross_section import Method
from stockpicker_dagster.research.labels import Transform, forward_returns, transform
from stockpicker_dagster.research.leaks import assert_no_label_leak, assert_scaled_by_date
from stockpicker_dagster.research.splits import Split, assert_purged
from stockpicker_dagster.storage.lake import Bundle, parquet_bytes

LABEL = "label"
CAPTIONS = "captions.json"
TABLES = ("train", "validation", "test")
LEARNED_FROM = ("train.parquet", "validation.parquet")


class EmptyDataset(StockPickerError):
    """A part of a dataset has no labelled row."""


@dataclass(frozen=True)
class LabelRule:
    """What is learned: the horizon in sessions, the transformation per date, and the quantiles clipped before it."""

    horizon_days: int
    transform: Transform
    quantiles: tuple[float, float] | None


def build_dataset(
    scaled: pl.DataFrame,
    prices: pl.DataFrame,
    delistings: pl.DataFrame,
    split: Split,
    test_sessions: Sequence[date],
    features: Sequence[str],
    rule: LabelRule,
    calendar: TradingCalendar,
    definition: str = "",
    scaling: Method | None = None,
) -> Bundle:
    """The files of one dataset.

    `scaled` holds the scaled features of the universe's members and `prices` the prices of every session from the first
    trained on; training and validation see none after `split.last_known`. `test_sessions` may lie later; the labels of
    the last of them are missing until they are known, and their rows with them. `scaling` is the method by which
    `scaled` was made (None: unknown, and not checked). Each of `train`, `validation` and `test` has `symbol`, `date`,
    the features, `label` and `label_return` (a fraction).

    Raises `LabelOverlap` if a label reaches into a later part, `LabelLeak` for a feature that is a label,
    `WholeSampleScaling` for features that were not scaled date by date, and `EmptyDataset` if training or validation
    has no row.
    """
    assert_purged(split.train, split.validation, rule.horizon_days, calendar, split.last_known)
    learned = _labelled(
        scaled.filter(pl.col("date") <= split.last_known),
        prices.filter(pl.col("date") <= split.last_known),
        delistings.filter(pl.col("known_at") <= split.last_known),
        features,
        rule,
        calendar,
    )
    tables = {
        "train": learned.filter(pl.col("date").is_in(split.train)),
        "validation": learned.filter(pl.col("date").is_in(split.validation)),
        "test": learned.clear(),
    }
    if test_sessions:
        tested = _labelled(scaled, prices, delistings, features, rule, calendar)
        tables["test"] = tested.filter(pl.col("date").is_in(list(test_sessions)))
    for part, (first, *_, last) in (("train", split.train), ("validation", split.validation)):
        if tables[part].is_empty():
            raise EmptyDataset(
                f"the {part} table has no labelled row between {first} and {last}; check that the universe has members "
                "with prices then"
            )
    assert_no_label_leak(tables["train"], features, LABEL, rule.horizon_days)
    if scaling is not None:
        assert_scaled_by_date(scaled.filter(pl.col("date").is_in(split.train)), features, scaling)
    days = pl.concat([tables[part]["date"] for part in TABLES]).unique()
    market_data = prices.filter(pl.col("date").is_in(days.implode())).select(list(PRICES_SCHEMA)).sort("date", "symbol")
    contents = {f"{name}.parquet": parquet_bytes([table], {}) for name, table in tables.items()}
    return Bundle(
        {
            **contents,
            "market_data.parquet": parquet_bytes([market_data], {}),
            CAPTIONS: _json(
                {
                    "features": list(features),
                    "label": LABEL,
                    "label_meaning": f"return from the next open to the open {rule.horizon_days} sessions later, less "
                    f"the universe's mean, transformed per date: {rule.transform}",
                    "definition": definition,
                    "horizon_days": rule.horizon_days,
                    "market_data": list(PRICES_SCHEMA),
                    "train": [str(split.train[0]), str(split.train[-1])],
                    "validation": [str(split.validation[0]), str(split.validation[-1])],
                    "test": [str(test_sessions[0]), str(test_sessions[-1])] if test_sessions else [],
                    "last_known": str(split.last_known),
                    "rows": {name: table.height for name, table in tables.items()},
                    # What is learned from, and nothing later: a model is the same whatever its test days hold.
                    "data_version": _digest({name: contents[name] for name in LEARNED_FROM}),
                }
            ),
        }
    )


def read_captions(folder: Path) -> dict[str, Any]:
    """What a stored dataset says of itself."""
    captions: dict[str, Any] = json.loads((folder / CAPTIONS).read_text())
    return captions


def data_version(folder: Path) -> str:
    """Which data a dataset teaches: a digest of its training and validation tables, as `captions.json` says it."""
    return _digest({name: (folder / name).read_bytes() for name in LEARNED_FROM})


def read_table(folder: Path, name: str) -> pl.DataFrame:
    """One of `train`, `validation`, `test` and `market_data` of a stored dataset."""
    return pl.read_parquet(folder / f"{name}.parquet", hive_partitioning=False)


def _labelled(
    scaled: pl.DataFrame,
    prices: pl.DataFrame,
    delistings: pl.DataFrame,
    features: Sequence[str],
    rule: LabelRule,
    calendar: TradingCalendar,
) -> pl.DataFrame:
    returns = forward_returns(prices, delistings, calendar, rule.horizon_days)
    labels = transform(returns, scaled.select("symbol", "date"), rule.transform, rule.quantiles)
    return (
        scaled.select("symbol", "date", *features)
        .join(labels.select("symbol", "date", LABEL, "label_return"), on=["symbol", "date"], how="inner")
        .filter(pl.col(LABEL).is_not_null())
        .sort("date", "symbol")
    )


def _digest(contents: dict[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(contents):
        digest.update(name.encode() + b"\0" + hashlib.sha256(contents[name]).digest())
    return digest.hexdigest()


def _json(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
