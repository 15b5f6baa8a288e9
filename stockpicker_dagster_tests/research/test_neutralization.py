"""Residuals against statsmodels, and what a neutral feature must keep: its own day, its units, and no noise."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.cross_section import scale
from stockpicker_dagster.research.neutralization import Exposed, Exposures, neutralize_blocks
from stockpicker_dagster_tests.research.price_frames import same_bytes

DAY = date(2024, 1, 2)
SECTORS = ["Energy", "Health Care", "Utilities", None]


def regression(feature: np.ndarray, sectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """What ordinary least squares leave of the feature, by statsmodels."""
    constants = (sectors[:, None] == np.unique(sectors)).astype(float)
    return np.asarray(sm.OLS(feature, np.column_stack([constants, others.T])).fit().resid)


def random_exposed(rng: np.random.Generator, rows: int, numbers: int) -> Exposed:
    others = rng.normal(size=(numbers, rows)) * 3 + 20
    return Exposed(rng.integers(0, 4, rows), others)


@pytest.mark.parametrize("numbers", [0, 1, 2])
def test_residuals_are_those_of_statsmodels(numbers: int) -> None:
    rng = np.random.default_rng(numbers)
    blocks = np.array([0, 40, 41, 41, 120])
    exposed = random_exposed(rng, 120, numbers)
    values = rng.normal(5, 2, 120) + exposed.sectors + exposed.others.sum(axis=0)
    values[[3, 77]] = np.nan, np.inf
    found = neutralize_blocks(values, blocks, exposed)
    for first, last in ((0, 40), (41, 120)):
        observed = np.arange(first, last)[np.isfinite(values[first:last])]
        expected = regression(values[observed], exposed.sectors[observed], exposed.others[:, observed])
        np.testing.assert_allclose(found[observed], expected, atol=1e-10)
    assert np.isnan(found[[3, 77]]).all()
    assert found[40] == 0.0


def test_an_exposure_that_others_explain_takes_nothing_more_out() -> None:
    rng = np.random.default_rng(5)
    exposed = random_exposed(rng, 60, 1)
    twice = Exposed(exposed.sectors, np.vstack([exposed.others, 7.0 - 2.0 * exposed.others]))
    constant = Exposed(exposed.sectors, np.vstack([exposed.others, np.full((1, 60), 1e6 / 3)]))
    values = rng.normal(size=60)
    alone = neutralize_blocks(values, np.array([0, 60]), exposed)
    assert neutralize_blocks(values, np.array([0, 60]), twice).tobytes() == alone.tobytes()
    assert neutralize_blocks(values, np.array([0, 60]), constant).tobytes() == alone.tobytes()


@pytest.mark.parametrize("level", [1.0, 1e6 / 3, 1e-9])
def test_what_the_exposures_explain_leaves_no_noise(level: float) -> None:
    rng = np.random.default_rng(6)
    exposed = random_exposed(rng, 60, 2)
    values = level * (exposed.sectors + 0.1 * exposed.others[0] - 3.0 * exposed.others[1])
    assert (neutralize_blocks(values, np.array([0, 60]), exposed) == 0.0).all()
    assert (neutralize_blocks(np.full(60, level), np.array([0, 60]), exposed) == 0.0).all()


def panel(seed: int, days: int = 4, stocks: int = 30) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Features with gaps, and exposures of which some are unknown."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"S{stock:02d}", DAY + timedelta(day)) for day in range(days) for stock in range(stocks) if rng.random() < 0.9
    ]
    keys = pl.DataFrame(rows, schema={"symbol": pl.String, "date": pl.Date}, orient="row")
    count = keys.height
    feature = np.where(rng.random(count) < 0.2, np.nan, rng.normal(size=count)).astype(np.float32)
    beta = np.where(rng.random(count) < 0.2, np.nan, rng.normal(1, 0.4, count))
    exposures = keys.with_columns(
        sector=pl.Series([SECTORS[place] for place in rng.integers(0, 4, count)]),
        size=pl.Series(rng.normal(18, 2, count)),
        beta=pl.Series(beta, nan_to_null=True),
    )
    return keys.with_columns(feature=pl.Series(feature, nan_to_null=True)), exposures


def test_a_scaled_feature_says_nothing_about_its_exposures() -> None:
    frame, table = panel(1)
    scaled = scale(frame, ["feature"], exposures=Exposures(table, "sector", ("size", "beta")))
    joined = scaled.join(table, on=["symbol", "date"]).join(frame.rename({"feature": "raw"}), on=["symbol", "date"])
    for day in joined.partition_by("date"):
        filled = day.with_columns(pl.col("beta").fill_null(pl.col("beta").median())).drop_nulls("raw")
        for name in ("size", "beta"):
            assert np.corrcoef(filled["feature"], filled[name])[0, 1] == pytest.approx(0.0, abs=1e-6)
        assert filled.group_by("sector").agg(pl.col("feature").mean())["feature"].abs().max() < 1e-6


def test_stocks_without_a_known_sector_are_a_sector_of_their_own() -> None:
    frame, table = panel(2)
    named = table.with_columns(pl.col("sector").fill_null("Unknown"))
    for exposures in (table, named):
        assert same_bytes(
            scale(frame, ["feature"], exposures=Exposures(exposures, "sector", ())),
            scale(frame, ["feature"], exposures=Exposures(named, "sector", ())),
        )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), method=st.sampled_from(["standard", "minmax", "rank", "robust"]))
def test_a_date_depends_on_no_other_date_and_on_no_order(seed: int, method: str) -> None:
    frame, table = panel(seed)
    exposures = Exposures(table, "sector", ("size", "beta"))
    whole = scale(frame, ["feature"], method, winsorize=(0.02, 0.98), exposures=exposures)  # type: ignore[arg-type]
    day = frame.filter(pl.col("date") == DAY).sample(fraction=1.0, shuffle=True, seed=seed)
    shuffled = Exposures(table.sample(fraction=1.0, shuffle=True, seed=seed), "sector", ("size", "beta"))
    alone = scale(day, ["feature"], method, winsorize=(0.02, 0.98), exposures=shuffled)  # type: ignore[arg-type]
    assert same_bytes(alone, whole.filter(pl.col("date") == DAY))
    assert np.isfinite(whole["feature"].to_numpy()).all()


def test_a_row_without_exposures_is_refused() -> None:
    frame, table = panel(3)
    with pytest.raises(InvalidInput, match="one row for each"):
        scale(frame, ["feature"], exposures=Exposures(table.head(10), "sector", ()))
