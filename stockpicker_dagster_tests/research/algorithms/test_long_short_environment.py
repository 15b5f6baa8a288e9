from datetime import date

import numpy as np
import polars as pl
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_for_learning

from stockpicker_dagster.research.algorithms.long_short_environment import (
    Book,
    CrossSections,
    Terms,
    book_of,
    environment_class,
)
from stockpicker_dagster_tests.research.algorithms.traded import FEATURES, traded


def sections(frame: pl.DataFrame, horizon: int = 1) -> CrossSections:
    return CrossSections.of(frame, FEATURES, "label", "training", horizon)


@pytest.mark.filterwarnings("ignore:.*(action space|Box observation space|unconventional shape).*")
def test_the_libraries_own_checkers_accept_the_environment() -> None:
    ragged = traded(1, 20, 6).filter(pl.int_range(pl.len()) % 7 != 0)
    environment = environment_class()(sections(ragged), Terms(5.0, 0.1), 8)
    check_env(environment, skip_render_check=True)
    check_for_learning(environment, skip_render_check=True)


def test_a_book_is_dollar_neutral_and_of_gross_one() -> None:
    weights = book_of(np.array([3.0, 1.0, 0.0, -10.0]))
    assert weights.sum() == pytest.approx(0.0, abs=1e-12)
    assert np.abs(weights).sum() == pytest.approx(1.0)
    assert book_of(np.array([2.0, 2.0])).tolist() == [0.0, 0.0]
    np.testing.assert_allclose(book_of(7 * np.array([3.0, 1.0, 0.0, -10.0]) + 2), weights)


def three_days() -> pl.DataFrame:
    """A and B on two days; on the third B is gone and C has come."""
    return pl.DataFrame(
        {
            "symbol": ["A", "B", "A", "B", "A", "C"],
            "date": [date(2024, 1, day) for day in (2, 2, 3, 3, 4, 4)],
            "label": [0.10, -0.10, 0.0, 0.20, 0.0, 0.01],
            **{name: [0.0] * 6 for name in FEATURES},
        }
    )


def test_returns_costs_and_drift_are_those_computed_by_hand() -> None:
    book = Book.empty(sections(three_days()), Terms(cost_bps=100.0), 0)
    gross, cost, turnover = book.trade(np.array([1.0, -1.0]))
    assert (gross, cost, turnover) == pytest.approx((0.10, 0.01, 1.0))
    # 0.5 x 1.1 / 1.1 and -0.5 x 0.9 / 1.1
    np.testing.assert_allclose(book.weights, [0.5, -0.45 / 1.1])
    gross, cost, turnover = book.trade(np.array([1.0, -1.0]))
    leaves = 0.5 * 1.2 / 0.9
    assert gross == pytest.approx(-0.10)
    assert turnover == pytest.approx(0.5 - 0.45 / 1.1 + leaves)
    assert cost == pytest.approx(0.01 * turnover)
    np.testing.assert_allclose(book.weights, [0.5 / 0.9, 0.0])
    gross, _, turnover = book.trade(np.array([-1.0, 1.0]))
    assert gross == pytest.approx(0.005)
    assert turnover == pytest.approx(0.5 / 0.9 + 0.5 + 0.5)
    assert book.ended


def test_the_reward_is_in_per_cent_after_costs_less_half_the_penalty_times_its_square() -> None:
    market = sections(three_days())
    assert Book.empty(market, Terms(), 0).reward(0.03, 0.01) == pytest.approx(2.0)
    assert Book.empty(market, Terms(risk_penalty=0.5), 0).reward(0.03, 0.01) == pytest.approx(2.0 - 0.25 * 4.0)


def test_a_longer_label_is_held_to_its_end() -> None:
    frame = traded(1, 12, 5)
    book, visited = Book.empty(sections(frame, 5), Terms(), 1), []
    while not book.ended:
        visited.append(book.date)
        book.trade(np.arange(5.0))
    assert visited == [1, 6, 11]


def test_what_is_seen_is_the_cross_section_and_the_weights_held() -> None:
    frame = traded(1, 6, 4)
    environment = environment_class()(sections(frame), Terms(), 3)
    seen, _ = environment.reset(options={"date": 2})
    np.testing.assert_array_equal(seen[:, :-2], frame.select(FEATURES).to_numpy()[8:12])
    assert seen[:, -2].tolist() == [0.0] * 4
    assert seen[:, -1].tolist() == [1.0] * 4
    after, reward, ended, cut_off, told = environment.step(np.array([1, 0, 0, -1], np.float32))
    returns = frame["label"].to_numpy()[8:12]
    assert reward == pytest.approx(100 * told["gross"]) == pytest.approx(50 * (returns[0] - returns[3]))
    assert after[0, -2] == pytest.approx(4 * 0.5 * (1 + returns[0]) / (1 + told["gross"]))
    assert (ended, cut_off) == (False, False)
    environment.step(np.zeros(4, np.float32))
    assert environment.step(np.zeros(4, np.float32))[2:4] == (False, True)


def test_scores_of_empty_rows_count_for_nothing() -> None:
    frame = traded(1, 4, 4).filter((pl.col("date") != date(2015, 1, 1)) | (pl.col("symbol") < "S002"))
    environment = environment_class()(sections(frame), Terms(), 2)
    told = []
    for beside in (0.0, 9.0):
        environment.reset(options={"date": 0})
        told.append(environment.step(np.array([1, -1, beside, -beside], np.float32))[1])
    assert told[0] == told[1]
