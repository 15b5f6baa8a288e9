"""Neutral features through a whole strategy: days alone equal days in a range, and exposures are those of the day."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.exposures import size_and_beta
from stockpicker_dagster_tests.system.pipelines import (
    CALENDAR,
    END,
    START,
    Pipeline,
    differing_files,
    files_form,
    simulated_form,
    stored_files,
)

FIRST = date(2022, 1, 3)
DAYS = CALENDAR.sessions(date(2022, 12, 22), date(2023, 1, 6))
PRICES = {"source": "simulated", "start": FIRST, "stocks": 40, "seed": 3}
SCALED = "mine/scaled_features"
ALL = {"neutralize": ["sector", "size", "beta"], "winsorize": 0.02}


@pytest.fixture(scope="module")
def neutral(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A strategy of neutral features, with the days of `DAYS` stored in one run."""
    pipeline = Pipeline(tmp_path_factory.mktemp("neutral"), {"mine": simulated_form(prices=PRICES, scaling=ALL)})
    pipeline.materialize(pipeline.collecting[:1], FIRST, DAYS[-1])
    pipeline.materialize(pipeline.collecting[1:], DAYS[0], DAYS[-1])
    return pipeline


def test_a_scaled_feature_is_uncorrelated_with_what_was_taken_out(neutral: Pipeline) -> None:
    scaled = neutral.lake.read(SCALED, DAYS)
    prices = neutral.lake.read("simulated/prices", CALENDAR.sessions(FIRST, DAYS[-1]))
    raw = neutral.lake.read("simulated/short/features", DAYS)
    table = size_and_beta(scaled.select("symbol", "date"), prices, CALENDAR)
    assert table["beta"].null_count() < table.height / 4
    joined = scaled.join(table, on=["symbol", "date"]).join(raw, on=["symbol", "date"], suffix="_raw")
    for day in joined.partition_by("date"):
        filled = day.with_columns(pl.col(name).fill_null(pl.col(name).median()) for name in ("size", "beta"))
        for feature in ("reversal_1w", "volatility_1m"):
            observed = filled.drop_nulls(f"{feature}_raw")
            assert observed.height > 20
            for name in ("size", "beta"):
                assert np.corrcoef(observed[feature], observed[name])[0, 1] == pytest.approx(0.0, abs=1e-6)
    plain = Pipeline(neutral.root, {"plain": simulated_form(prices=PRICES)})
    plain.materialize(["plain/scaled_features"], DAYS[-1])
    assert not plain.lake.read("plain/scaled_features", DAYS[-1:]).equals(scaled.filter(pl.col("date") == DAYS[-1]))


def test_days_one_by_one_are_the_files_of_the_range(neutral: Pipeline, tmp_path: Path) -> None:
    alone = neutral.copied_to(tmp_path / "alone")
    before = stored_files(alone.lake, lambda name: name.startswith("mine/"))
    for day in (DAYS[0], DAYS[5], DAYS[-1]):
        alone.materialize([SCALED], day)
    assert differing_files(before, stored_files(alone.lake, lambda name: name.startswith("mine/"))) == []


def test_what_is_taken_out_is_part_of_the_definition_and_shown() -> None:
    forms = [simulated_form(scaling=scaling) for scaling in ({}, ALL, {"neutralize": ["size"]})]
    assert len({form.definition("scaled_features") for form in forms}) == 3


def test_a_universe_without_sectors_cannot_be_made_neutral_to_them(price_file: Path, tmp_path: Path) -> None:
    sector = {"neutralize": ["sector"]}
    with pytest.raises(ValidationError, match="cannot neutralize the sector, which this universe does not say"):
        files_form(price_file, scaling=sector)
    members = tmp_path / "members.csv"
    members.write_text("ticker,start_date,end_date\nAAA,2020-01-01,\nBBB,2020-01-01,\n")
    form = files_form(price_file, universe={"file": str(members)}, scaling=sector)
    pipeline = Pipeline(tmp_path / "home", {"mine": form})
    pipeline.materialize(pipeline.collecting[:2], START, END)
    with pytest.raises(InvalidInput, match="says no member's sector; leave it out, or give the list a column sector"):
        pipeline.materialize([SCALED], END)


def test_naming_one_thing_twice_is_refused(price_file: Path) -> None:
    with pytest.raises(ValidationError, match="names one thing twice"):
        files_form(price_file, scaling={"neutralize": ["size", "size"]})
