import json
from pathlib import Path

import empyrical
import numpy as np
import pytest
import statsmodels.api as statsmodels

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.reference_returns import aligned, read_reference_returns
from stockpicker_dagster.research.backtest.factor_model import against_benchmark, factor_model, newey_west_lag

RNG = np.random.default_rng(5)
FACTORS = {name: RNG.standard_normal(600) * 0.01 for name in ("market", "size", "value")}
RETURNS = 0.0003 + 0.9 * FACTORS["market"] - 0.4 * FACTORS["value"] + RNG.standard_normal(600) * 0.004


@pytest.mark.parametrize("lag", [0, 3, 10])
def test_a_regression_is_that_of_statsmodels_with_newey_west_errors(lag: int) -> None:
    ours = factor_model(RETURNS, FACTORS, lag=lag)
    design = statsmodels.add_constant(np.column_stack(list(FACTORS.values())))
    theirs = statsmodels.OLS(RETURNS, design).fit(cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": False})
    assert [ours.alpha / 252, *ours.betas.values()] == pytest.approx(theirs.params, rel=1e-9)
    assert [ours.alpha_t, *ours.beta_t.values()] == pytest.approx(theirs.tvalues, rel=1e-8)
    assert ours.r_squared == pytest.approx(theirs.rsquared)


def test_the_risk_free_rate_is_taken_from_the_book_only() -> None:
    rate = np.full(600, 0.0001)
    assert factor_model(RETURNS, FACTORS, risk_free=rate) == factor_model(RETURNS - rate, FACTORS)


def test_beta_and_alpha_are_empyricals_where_the_definition_is_shared() -> None:
    ours = against_benchmark(RETURNS, FACTORS["market"])
    assert ours.beta == pytest.approx(empyrical.beta(RETURNS, FACTORS["market"]), rel=1e-8)
    # empyrical compounds the daily alpha, where ours is arithmetic.
    assert (1 + ours.alpha / 252) ** 252 - 1 == pytest.approx(empyrical.alpha(RETURNS, FACTORS["market"]), rel=1e-8)


@pytest.mark.real_data
def test_bacons_published_figures_against_a_benchmark_are_met(real_data: Path) -> None:
    oracle = json.loads((real_data / "oracles" / "bacon_performance_metrics.json").read_text())
    own, other = (np.array(oracle[name]) / 100 for name in ("portfolio", "benchmark"))
    found, expected = against_benchmark(own, other, periods=12), oracle["expected"]
    assert found.jensen_alpha == pytest.approx(expected["JensenAlpha"], abs=5e-4)
    assert found.jensen_alpha == pytest.approx(expected["Selectivity"], abs=1e-4)
    assert found.specific_risk == pytest.approx(expected["SpecificRisk"], abs=5e-5)
    assert found.appraisal_ratio == pytest.approx(expected["AppraisalRatio"], abs=5e-4)
    assert found.fama_beta == pytest.approx(expected["FamaBeta"], abs=5e-3)


@pytest.mark.real_data
def test_the_market_of_french_explains_itself(real_data: Path) -> None:
    french = read_reference_returns(real_data / "factors" / "french_daily_1990_2024.csv")
    names = [name for name in french.columns if name not in ("date", "rf")]
    columns = aligned(french, names, french["date"].to_list()[-500:])
    market = next(name for name in names if name.startswith("mkt"))
    found = factor_model(columns[market], columns)
    assert found.betas[market] == pytest.approx(1.0)
    assert found.r_squared == pytest.approx(1.0)


def test_the_usual_lag_grows_slowly() -> None:
    assert [newey_west_lag(sessions) for sessions in (50, 100, 1000, 2520)] == [3, 4, 6, 8]


@pytest.mark.parametrize(
    ("returns", "factors", "says"),
    [
        (RETURNS, {}, "no factor"),
        (RETURNS[:10], FACTORS, "market has 600 returns and the book has 10"),
        (RETURNS[:4], {"market": FACTORS["market"][:4], "size": FACTORS["size"][:4]}, "at least 5"),
        (RETURNS, {"market": FACTORS["market"], "twice": 2 * FACTORS["market"]}, "linear combinations"),
        (RETURNS, {"still": np.zeros(600)}, "constant"),
        (RETURNS, {"market": np.full(600, np.nan)}, "row 0"),
    ],
)
def test_a_regression_that_cannot_be_made_is_refused(
    returns: np.ndarray, factors: dict[str, np.ndarray], says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        factor_model(returns, factors)
