from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.backtest.significance.verdict import Verdict, verdict, words_of

SESSIONS = 1260
DAYS = [date(2015, 1, 1) + timedelta(days=number) for number in range(SESSIONS)]


def noise(seed: int, columns: int | None = None, sessions: int = SESSIONS) -> np.ndarray:
    shape = sessions if columns is None else (sessions, columns)
    return np.random.default_rng(seed).standard_normal(shape) * 0.01


def with_ratio(annual: float, seed: int = 1) -> np.ndarray:
    """Returns of exactly this annual Sharpe ratio."""
    values = noise(seed)
    values = (values - values.mean()) / values.std(ddof=1)
    return 0.01 * (values + annual / np.sqrt(252))


def judged(returns: np.ndarray, books: np.ndarray | None = None, **changes: Any) -> Verdict:
    own = float(returns.mean() / returns.std(ddof=1)) if returns.std() > 0 else 0.0
    given: dict[str, Any] = {
        "sessions": DAYS,
        "net_return": returns,
        "cost": np.full(SESSIONS, 1e-4),
        "random_net_returns": noise(99, 400) if books is None else books,
        "trial_sharpes": [own],
    }
    return verdict(**given | changes)


def test_a_ratio_of_two_over_five_years_is_strong_and_says_why() -> None:
    found = judged(with_ratio(2.0))
    assert found.words == "strong"
    assert "net Sharpe ratio of 2.00" in found.reason
    assert "random books" in found.reason
    assert found.sharpe_interval.low < found.sharpe < found.sharpe_interval.high
    assert found.minimum_track_record < SESSIONS


def test_a_ratio_just_above_the_threshold_is_weak() -> None:
    # Phi(z) of 0.98 lies between the two thresholds.
    returns = with_ratio(2.06 / np.sqrt(SESSIONS - 1) * np.sqrt(252))
    assert judged(returns, noise(99, 400) - 2e-4).words == "weak"


def test_a_search_through_many_trials_turns_strong_into_luck() -> None:
    returns = with_ratio(1.3)
    trials = noise(3)[:200] / 0.01 / np.sqrt(SESSIONS)
    assert judged(returns).words != "cannot be told from luck"
    found = judged(returns, trial_sharpes=trials)
    assert found.words == "cannot be told from luck"
    assert "best of 200 trials" in found.reason


def test_a_losing_book_that_beats_its_random_copies_cannot_be_told_from_luck() -> None:
    # The trap: copies that are less volatile lose more to costs per unit of risk.
    books = noise(98, 400) / 3 - 6e-4
    found = judged(with_ratio(-0.05), books)
    assert found.permutation.percentile > 96
    assert found.words == "cannot be told from luck"
    assert "not above zero" in found.reason


def test_a_small_gain_that_beats_its_random_copies_says_that_volatility_may_do_so() -> None:
    found = judged(with_ratio(0.3), noise(98, 400) / 3 - 6e-4)
    assert found.words == "cannot be told from luck"
    assert "more volatile" in found.reason


def test_good_returns_that_every_random_book_has_too_are_no_skill() -> None:
    books = noise(97, 400) + 0.002
    found = judged(with_ratio(2.5), books)
    assert found.words == "cannot be told from luck"
    assert "p " in found.reason


def test_both_questions_must_be_answered_with_yes() -> None:
    assert words_of(0.999, 0.001, 1.0) == "strong"
    assert words_of(0.989, 0.001, 1.0) == "weak"
    assert words_of(0.999, 0.02, 1.0) == "weak"
    assert words_of(0.974, 0.001, 1.0) == "cannot be told from luck"
    assert words_of(0.999, 0.026, 1.0) == "cannot be told from luck"
    assert words_of(0.999, 0.001, 0.0) == "cannot be told from luck"


def test_noise_is_believed_no_more_often_than_the_rule_allows_and_its_p_is_uniform() -> None:
    # The book and its copies are exchangeable here by construction.
    believed, p_values = 0, []
    for seed in range(300):
        panel = noise(seed, 100, 126)
        found = verdict(
            sessions=DAYS[:126],
            net_return=panel[:, 0],
            cost=np.full(126, 1e-4),
            random_net_returns=panel[:, 1:],
            trial_sharpes=[0.0],
        )
        believed += found.words != "cannot be told from luck"
        p_values.append(found.permutation.p_value)
    # 2.5 % at most; 17 of 300 are more than three standard errors above it.
    assert believed <= 16
    # p takes the values 1/100 to 100/100.
    assert kstest(np.array(p_values) - 0.005, "uniform").pvalue > 0.01


def test_the_choice_among_offsets_is_shown_with_its_probability_of_overfitting() -> None:
    returns = with_ratio(1.0)
    found = judged(returns, offset_sharpes=[0.2, 1.0, 0.5], configurations=noise(5, 5))
    assert found.offsets is not None
    assert found.overfitting is not None
    assert 0.0 <= found.overfitting <= 1.0
    assert judged(returns).overfitting is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trials": 5}, "5 trials and 1 are logged"),
        ({"trial_sharpes": []}, "0 trials and 0 are logged"),
        ({"random_net_returns": noise(1, 10)[:5]}, "random books of shape"),
        ({"sessions": DAYS[:7]}, "sessions"),
        ({"net_return": np.zeros(SESSIONS)}, "never move"),
        ({"net_return": np.full(SESSIONS, np.nan)}, "row 0"),
        ({"cost": np.zeros(3)}, "at least 21"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_a_sentence(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        judged(with_ratio(1.0), **changes)
