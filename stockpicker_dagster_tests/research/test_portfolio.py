"""Target weights against a naive choice by sorting tuples, and the sums that any book must have."""

import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.portfolio import target_weights

NAN = float("nan")
SCORES = st.lists(st.one_of(st.just(NAN), st.floats(-3, 3), st.sampled_from([0.0, 1.0])), max_size=25)
SIZES = st.one_of(st.integers(1, 12), st.sampled_from([0.1, 0.29, 0.3, 0.5]))


def naive_size(size: float, count: int) -> int:
    return size if isinstance(size, int) else min(count, max(1, round(size * count * 1e6) // 10**6))


def naive_weights(scores: list[float], long: float, short: float, weighting: str) -> list[float]:
    """Sort, cut off both ends, divide: as one would by hand."""
    ranked = sorted((-score, place) for place, score in enumerate(scores) if not math.isnan(score))
    count = len(ranked)
    longs, shorts = (naive_size(size, count) for size in (long, short))
    if longs + shorts > count:
        both = longs + shorts
        if count < 2 and longs and shorts:
            return [0.0] * len(scores)
        fewer = [max(1 if size else 0, count * size // both) for size in (longs, shorts)]
        longs = min(fewer[0], count - 1 if shorts else count)
        shorts = min(fewer[1], count - longs)
    median = statistics.median(-negated for negated, _ in ranked) if ranked else 0.0
    weights = [0.0] * len(scores)
    for side, leg in ((1.0, ranked[:longs]), (-1.0, ranked[count - shorts :] if shorts else [])):
        sizes_of = [abs(-negated - median) if weighting == "score" else 1.0 for negated, _ in leg]
        if not sum(sizes_of) > 0.0:
            sizes_of = [1.0] * len(leg)
        for (_, place), size in zip(leg, sizes_of, strict=True):
            weights[place] = side * size / sum(sizes_of)
    return weights


@settings(max_examples=100, deadline=None)
@given(SCORES, SIZES, st.one_of(st.just(0), SIZES), st.sampled_from(["equal", "score"]))
def test_weights_are_those_of_a_naive_sort(scores: list[float], long: float, short: float, weighting: Any) -> None:
    expected = naive_weights(scores, long, short, weighting)
    np.testing.assert_allclose(target_weights(scores, long, short, weighting), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(SCORES, SIZES, SIZES, st.sampled_from(["equal", "score"]))
def test_the_legs_sum_to_one_and_never_share_or_invent_a_name(
    scores: list[float], long: float, short: float, weighting: Any
) -> None:
    weights = target_weights(scores, long, short, weighting)
    scored = ~np.isnan(np.array(scores, dtype=float))
    assert not weights[~scored].any()
    if scored.sum() < 2:
        assert not weights.any()
    else:
        assert weights[weights > 0].sum() == pytest.approx(1.0)
        assert weights[weights < 0].sum() == pytest.approx(-1.0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-50, 50).map(float), min_size=4, max_size=20, unique=True))
def test_the_most_attractive_are_long_and_the_least_attractive_short(scores: list[float]) -> None:
    weights = target_weights(scores, 2, 2, "equal")
    assert np.flatnonzero(weights > 0).tolist() == sorted(np.argsort(scores)[-2:].tolist())
    assert np.flatnonzero(weights < 0).tolist() == sorted(np.argsort(scores)[:2].tolist())


def test_score_weights_follow_the_distance_from_the_median() -> None:
    weights = target_weights([4.0, 2.0, 0.0, -1.0, -3.0], 2, 2, "score")
    np.testing.assert_allclose(weights, [4 / 6, 2 / 6, 0.0, -1 / 4, -3 / 4])


def test_equal_scores_rank_by_position() -> None:
    assert target_weights([1.0, 1.0, 1.0, 1.0], 1, 1, "equal").tolist() == [1.0, 0.0, 0.0, -1.0]
    assert target_weights([1.0, 1.0, 1.0, 1.0], 1, 1, "score").tolist() == [1.0, 0.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("names", "long", "short", "longs", "shorts"),
    [
        (100, 0.29, 0.3, 29, 30),
        (7, 0.3, 0.3, 2, 2),
        (2, 0.3, 0.3, 1, 1),
        (3, 50, 50, 1, 1),
        (10, 1, 50, 1, 9),
        (9, 4, 8, 3, 6),
        (5, 8, 0, 5, 0),
        (1, 8, 0, 1, 0),
        (1, 1, 1, 0, 0),
        (0, 5, 5, 0, 0),
        (0, 5, 0, 0, 0),
    ],
)
def test_leg_sizes(names: int, long: float, short: float, longs: int, shorts: int) -> None:
    weights = target_weights(np.arange(names, dtype=float), long, short, "equal")
    assert ((weights > 0).sum(), (weights < 0).sum()) == (longs, shorts)


def test_no_scored_name_gives_no_position() -> None:
    assert target_weights([NAN, NAN], 1, 1).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], 0, 1, "equal"), "long is 0"),
        (([1.0, 2.0], -3, 1, "equal"), "long is -3; give a whole number of names, or a fraction"),
        (([1.0, 2.0], 1, 1.5, "equal"), "short is 1.5"),
        (([1.0, 2.0], True, 1, "equal"), "long is True"),
        (([1.0, 2.0], 1, 1, "size"), "weights 'size' is unknown; known: equal, score, rank, volatility"),
        (([1.0, math.inf], 1, 1, "equal"), "score inf in row 0, column 1 is not finite"),
    ],
)
def test_what_is_not_allowed_is_named(arguments: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        target_weights(*arguments)
