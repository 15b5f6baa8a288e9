"""A signal's figures against alphalens, and what must not move them."""

import contextlib
import io
import math
import warnings
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.research.backtest.signal_quality import newey_west_t, signal_quality
from stockpicker_dagster.research.backtest.signal_study import (
    DailyFigures,
    Sectors,
    cumulative_quantile_returns,
    signal_study,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from alphalens import performance
    from alphalens.utils import get_clean_factor

NAN = float("nan")
HORIZONS = (1, 5)
SESSIONS = trading_calendar("XNYS").sessions(date(2022, 11, 1), date(2023, 2, 28))
NAMES = 40
SEEDS = st.integers(0, 10**6)


def panels(seed: int, names: int = NAMES) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Persistent scores with ties and holes, and returns that they foretell a little, known for every scored stock."""
    rng = np.random.default_rng(seed)
    scores = np.cumsum(rng.normal(size=(len(SESSIONS), names)), axis=0).round(1)
    returns = {h: 0.01 * scores / (1 + h) + 0.05 * rng.normal(size=scores.shape) for h in HORIZONS}
    scores[rng.random(scores.shape) < 0.1] = NAN
    return scores, returns


def sectors_of(seed: int, names: int = NAMES) -> Sectors:
    drawn = np.random.default_rng(seed).integers(0, 3, size=names)
    return Sectors(("Energy", "Health", "Utilities"), np.tile(drawn, (len(SESSIONS), 1)))


def long(panel: np.ndarray) -> pd.Series:
    index = pd.MultiIndex.from_product([pd.DatetimeIndex(SESSIONS), range(panel.shape[1])], names=["date", "asset"])
    return pd.Series(panel.ravel(), index=index)


def clean(scores: np.ndarray, returns: dict[int, np.ndarray], sectors: Sectors, by_group: bool = False) -> pd.DataFrame:
    """What alphalens starts from."""
    forward = pd.DataFrame({f"{horizon}D": long(panel) for horizon, panel in returns.items()})
    groups = long(np.array(sectors.names)[sectors.members])
    with contextlib.redirect_stdout(io.StringIO()):
        return get_clean_factor(
            long(scores).dropna(), forward, groupby=groups, binning_by_group=by_group, quantiles=5, max_loss=1.0
        )


def by_day(frame: pd.DataFrame) -> np.ndarray:
    """alphalens' figures of each horizon on every session, `(H, T)`."""
    rows = frame.reindex(pd.DatetimeIndex(SESSIONS))
    return rows[[f"{horizon}D" for horizon in HORIZONS]].to_numpy().T


def check_against_alphalens(ours: DailyFigures, factor: pd.DataFrame, demeaned_by_group: bool = False) -> None:
    np.testing.assert_allclose(
        ours.rank_ic, by_day(performance.factor_information_coefficient(factor)), atol=1e-12, err_msg="rank IC"
    )
    means, _ = performance.mean_return_by_quantile(factor, by_date=True, group_adjust=demeaned_by_group)
    for quantile in range(1, 6):
        np.testing.assert_allclose(
            ours.quantile_returns[:, :, quantile - 1], by_day(means.xs(quantile, level="factor_quantile")), atol=1e-12
        )
    spread, _ = performance.compute_mean_returns_spread(means, 5, 1)
    np.testing.assert_allclose(
        ours.quantile_returns[:, :, 4] - ours.quantile_returns[:, :, 0], 2.0 * by_day(spread), atol=1e-12
    )
    for place, horizon in enumerate(HORIZONS):
        autocorrelation = performance.factor_rank_autocorrelation(factor, horizon)
        theirs = autocorrelation.reindex(pd.DatetimeIndex(SESSIONS)).to_numpy()
        np.testing.assert_allclose(ours.rank_autocorrelation[place], theirs, atol=1e-12, err_msg="autocorrelation")
        for quantile in range(1, 6):
            turnover = performance.quantile_turnover(factor["factor_quantile"], quantile, horizon)
            theirs = turnover.reindex(pd.DatetimeIndex(SESSIONS)).to_numpy()
            np.testing.assert_allclose(ours.quantile_turnover[place, :, quantile - 1], theirs, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [1, 2])
def test_daily_figures_are_those_of_alphalens(seed: int) -> None:
    scores, returns = panels(seed)
    check_against_alphalens(signal_study(scores, returns, SESSIONS).daily, clean(scores, returns, sectors_of(seed)))


@pytest.mark.filterwarnings("ignore")
def test_stocks_without_a_return_at_a_horizon_are_kept_in_the_ranks_where_alphalens_drops_them() -> None:
    scores, returns = panels(3)
    returns[5][np.random.default_rng(3).random(scores.shape) < 0.2] = NAN
    theirs = clean(scores, returns, sectors_of(3))
    kept = np.where(np.isnan(returns[5]), NAN, scores)
    check_against_alphalens(signal_study(kept, returns, SESSIONS).daily, theirs)
    np.testing.assert_array_equal(
        signal_study(scores, returns, SESSIONS).daily.quantile_turnover,
        signal_study(scores, {h: np.zeros_like(scores) for h in HORIZONS}, SESSIONS).daily.quantile_turnover,
    )


@pytest.mark.filterwarnings("ignore")
def test_sector_figures_are_those_of_alphalens_within_groups() -> None:
    scores, returns = panels(4)
    # Without ties, for which alphalens would drop a day of a small sector altogether.
    scores, sectors = scores + np.arange(NAMES) * 1e-6, sectors_of(4)
    found = signal_study(scores, returns, SESSIONS, sectors=sectors).by_sector
    factor = clean(scores, returns, sectors, by_group=True)
    means, _ = performance.mean_return_by_quantile(factor, by_group=True, group_adjust=True)
    ic = performance.mean_information_coefficient(factor, by_group=True)
    for sector in sectors.names:
        for place, horizon in enumerate(HORIZONS):
            figures = found[sector][place]
            assert figures.quality.mean_rank_ic == pytest.approx(ic.loc[sector, f"{horizon}D"], abs=1e-12)
            theirs = means.xs(sector, level="group")[f"{horizon}D"]
            assert figures.quantile_returns.means == pytest.approx(theirs.to_numpy(), abs=1e-12)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_a_sectors_figures_are_those_of_its_stocks_alone(seed: int) -> None:
    scores, returns = panels(seed)
    sectors = sectors_of(seed)
    found = signal_study(scores, returns, SESSIONS, sectors=sectors)
    for place, sector in enumerate(sectors.names):
        alone = np.where(sectors.members == place, scores, NAN)
        assert repr(found.by_sector[sector]) == repr(signal_study(alone, returns, SESSIONS).all_stocks)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 30), st.sampled_from([2, 3, 5, 10]))
def test_quantiles_are_those_of_pandas_ties_included(seed: int, names: int, quantiles: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(1, names)).round(int(rng.integers(0, 4)))
    # Returns of one stock at a time show which quantile it is in.
    for stock in range(names):
        lone = np.zeros((1, names))
        lone[0, stock] = 1.0
        means = signal_study(scores, {1: lone}, SESSIONS[:1], quantiles=quantiles).daily.quantile_returns[0, 0]
        try:
            theirs, edges = pd.qcut(scores[0], quantiles, labels=False, retbins=True)
        except ValueError:
            edges = np.zeros(2)
        # pandas' rounding may set equal edges some 1e-16 apart, and then it keeps a day that has no quantiles.
        if np.diff(edges).min() < 1e-12:
            assert np.isnan(means).all()
        else:
            assert np.flatnonzero(np.nan_to_num(means, nan=-1.0) > -1.0 / names).tolist() == [theirs[stock]]


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.integers(1, len(SESSIONS) - 1))
def test_a_day_ignores_later_days_new_columns_and_threads(seed: int, count: int) -> None:
    scores, returns = panels(seed)
    empty = np.full((len(scores), 3), NAN)
    whole = signal_study(
        np.hstack([scores, empty]), {h: np.hstack([r, empty]) for h, r in returns.items()}, SESSIONS, workers=2
    ).daily
    cut = signal_study(scores[:count], {h: r[:count] for h, r in returns.items()}, SESSIONS[:count], workers=1).daily
    for name in ("ic", "rank_ic", "quantile_returns", "quantile_turnover", "rank_autocorrelation"):
        assert np.ascontiguousarray(getattr(whole, name)[:, :count]).tobytes() == getattr(cut, name).tobytes()


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_all_but_the_plain_ic_sees_only_the_order(seed: int) -> None:
    scores, returns = panels(seed)
    plain, bent = (signal_study(panel, returns, SESSIONS).daily for panel in (scores, np.exp(scores / 3)))
    for name in ("rank_ic", "quantile_returns", "quantile_turnover", "rank_autocorrelation"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(bent, name))


def test_figures_are_means_over_days_with_newey_west_t() -> None:
    scores, returns = panels(5)
    found = signal_study(scores, returns, SESSIONS)
    for place, horizon in enumerate(HORIZONS):
        figures, daily = found.all_stocks[place], found.daily
        assert figures.quality == signal_quality(scores, returns[horizon], horizon)
        spread = daily.quantile_returns[place, :, 4] - daily.quantile_returns[place, :, 0]
        assert figures.quantile_returns.spread == pytest.approx(spread.mean())
        assert figures.quantile_returns.spread_t == newey_west_t(spread, horizon)
        assert figures.quantile_turnover == pytest.approx(np.nanmean(daily.quantile_turnover[place], axis=0))


def test_a_year_has_the_figures_of_its_days() -> None:
    scores, returns = panels(6)
    found = signal_study(scores, returns, SESSIONS)
    assert list(found.by_year) == [2022, 2023]
    rows = [place for place, session in enumerate(SESSIONS) if session.year == 2023]
    alone = signal_study(scores[rows], {h: r[rows] for h, r in returns.items()}, [SESSIONS[row] for row in rows])
    for of_year, by_itself in zip(found.by_year[2023], alone.all_stocks, strict=True):
        assert of_year.quality == by_itself.quality
        assert of_year.quantile_returns == by_itself.quantile_returns


def test_perfect_scores_are_monotonous_and_reversed_ones_the_contrary() -> None:
    returns = np.random.default_rng(7).normal(size=(len(SESSIONS), NAMES))
    best, worst = (signal_study(sign * returns, {1: returns}, SESSIONS).all_stocks[0] for sign in (1.0, -1.0))
    assert best.quality.mean_rank_ic == pytest.approx(1.0)
    for figures, order, share in ((best.quantile_returns, 1.0, 1.0), (worst.quantile_returns, -1.0, 0.0)):
        assert figures.rank_correlation == pytest.approx(order)
        assert figures.steps_in_order == share
        assert figures.spread * order > 2.0


def test_a_signal_that_stands_still_turns_nothing_over() -> None:
    scores = np.tile(np.random.default_rng(8).normal(size=NAMES), (len(SESSIONS), 1))
    figures = signal_study(scores, {5: np.ones_like(scores)}, SESSIONS).all_stocks[0]
    assert figures.quantile_turnover == (0.0,) * 5
    assert figures.rank_autocorrelation == pytest.approx(1.0)


def test_the_fan_compounds_daily_returns() -> None:
    daily = np.array([[0.01, -0.02], [NAN, 0.03], [0.02, 0.01]])
    np.testing.assert_allclose(
        cumulative_quantile_returns(daily, 1)[-1], [1.01 * 1.02 - 1.0, 0.98 * 1.03 * 1.01 - 1.0], rtol=1e-14
    )
    np.testing.assert_allclose(cumulative_quantile_returns(daily, 5), cumulative_quantile_returns(daily / 5, 1))


def test_nothing_scored_and_one_score_for_all_give_nan_and_not_a_number() -> None:
    for panel in (np.full((30, NAMES), NAN), np.ones((30, NAMES))):
        (figures,) = signal_study(panel, {1: np.ones_like(panel)}, SESSIONS[:30]).all_stocks
        assert figures.quality.days == 0
        assert figures.quantile_returns.days == 0
        assert math.isnan(figures.quantile_returns.spread)
        assert math.isnan(figures.quantile_returns.rank_correlation)
        assert all(math.isnan(share) for share in figures.quantile_turnover)


def test_a_study_that_cannot_be_made_is_refused() -> None:
    panel = np.ones((3, 4))
    with pytest.raises(InvalidInput, match="give at least one horizon"):
        signal_study(panel, {}, SESSIONS[:3])
    with pytest.raises(InvalidInput, match="with 1 quantiles"):
        signal_study(panel, {1: panel}, SESSIONS[:3], quantiles=1)
    with pytest.raises(InvalidInput, match="2 sessions for scores of 3"):
        signal_study(panel, {1: panel}, SESSIONS[:2])
    with pytest.raises(InvalidInput, match="not the same panel"):
        signal_study(panel, {1: panel[:2]}, SESSIONS[:3])
    with pytest.raises(InvalidInput, match="give one a stock"):
        signal_study(panel, {1: panel}, SESSIONS[:3], sectors=Sectors(("Energy",), np.zeros((2, 4), dtype=np.int64)))
