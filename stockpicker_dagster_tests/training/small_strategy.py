"""A small invented market with scaled features that know a little of the future; no test lives here."""

from datetime import date

import numpy as np
import polars as pl

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.research.cross_section import Method
from stockpicker_dagster.research.splits import Split, split
from stockpicker_dagster.storage.lake import Bundle
from stockpicker_dagster.training.datasets import LabelRule, build_dataset
from stockpicker_dagster_tests.research.price_frames import no_delistings, random_market

CALENDAR = trading_calendar("XNYS")
FEATURES = ("one", "two")
RULE = LabelRule(5, "rank", None)
TRAIN, VALIDATION, TEST = (
    (date(2023, 1, 3), date(2023, 3, 31)),
    (date(2023, 4, 3), date(2023, 5, 31)),
    (date(2023, 6, 1), date(2023, 6, 30)),
)
SESSIONS = CALENDAR.sessions(TRAIN[0], TEST[1])
TESTED = CALENDAR.sessions(*TEST)
PRICES = random_market(SESSIONS, 12, seed=4)


def _scaled() -> pl.DataFrame:
    rng = np.random.default_rng(2)
    rows = PRICES.select("symbol", "date")
    return rows.with_columns(pl.Series(name, rng.normal(size=rows.height).astype(np.float32)) for name in FEATURES)


SCALED = _scaled()
SPLIT = split(TRAIN, VALIDATION, RULE.horizon_days, TEST[0], CALENDAR)


def dataset(
    scaled: pl.DataFrame = SCALED,
    prices: pl.DataFrame = PRICES,
    purged: Split = SPLIT,
    tested: list[date] = TESTED,
    features: tuple[str, ...] = FEATURES,
    rule: LabelRule = RULE,
    scaling: Method | None = None,
) -> Bundle:
    return build_dataset(scaled, prices, no_delistings(), purged, tested, features, rule, CALENDAR, "", scaling)
