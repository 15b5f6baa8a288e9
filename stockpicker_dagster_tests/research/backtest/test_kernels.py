"""The random numbers of the kernels; their books are tested through `engine` and `random_books`."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from stockpicker_dagster.research.backtest import kernels
from stockpicker_dagster.research.portfolio import rank
from stockpicker_dagster_tests.research.backtest.random_markets import slow_draw

PLAUSIBLE = 1e-4
"""A p-value below this does not happen by chance; the seeds are fixed."""


def key_of(seed: int, book: int) -> np.uint64:
    """The key, whose type the boundary to Python loses."""
    return np.uint64(kernels.book_key(seed, book))


def stocks(size: int, groups: list[int] | None = None) -> kernels.Ranking:
    """So many stocks that all are first scored on one day, in the order of their columns."""
    peers = None if groups is None else np.array(groups)
    return rank(np.ones((1, size)), np.arange(size), np.ones(1, dtype=bool), peer_group=peers)


def permutation(size: int, seed: int, book: int) -> tuple[int, ...]:
    destination = np.empty(size, dtype=np.uint32)
    kernels.grow_permutation(destination, 0, size, key_of(seed, book), stocks(size))
    return tuple(destination.tolist())


def test_splitmix64_gives_the_published_sequence() -> None:
    """The first outputs for the seed 1234567 of the reference implementation (Vigna, splitmix64.c)."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    gamma = 0x9E3779B97F4A7C15
    states = [(1234567 + step * gamma) % 2**64 for step in range(4)]
    assert [int(kernels.splitmix64(np.uint64(state))) for state in states] == published


def test_draws_are_uniform_and_fixed_by_their_counter() -> None:
    key = key_of(1, 2)
    draws = [kernels.draw(key, counter, 7) for counter in range(7000)]
    assert stats.chisquare(np.bincount(draws, minlength=7)).pvalue > PLAUSIBLE
    assert draws == [slow_draw(1, 2, counter, 7) for counter in range(7000)]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_permutation_is_equally_likely_at_every_size(size: int) -> None:
    books = 4800
    counts = Counter(permutation(size, 9, book) for book in range(books))
    every = int(np.prod(np.arange(1, size + 1)))
    assert len(counts) == every
    assert stats.chisquare(list(counts.values())).pvalue > PLAUSIBLE


def test_a_newcomer_moves_at_most_one_older_identity() -> None:
    for book in range(50):
        before, after = permutation(20, 3, book), permutation(21, 3, book)
        assert sorted(after) == list(range(21))
        assert sum(old != new for old, new in zip(before, after[:20], strict=True)) <= 1


def test_identities_are_exchanged_within_their_group_alone() -> None:
    groups = [0, 1, 0, 2, 1, 0, 0, 1]
    seen = [set() for _ in groups]
    for book in range(300):
        destination = np.empty(8, dtype=np.uint32)
        kernels.grow_permutation(destination, 0, 8, key_of(1, book), stocks(8, groups))
        assert sorted(destination.tolist()) == list(range(8))
        for column, other in enumerate(destination):
            seen[column].add(int(other))
    assert seen == [{column for column in range(8) if groups[column] == own} for own in groups]


def test_growing_in_steps_is_growing_at_once() -> None:
    key, destination = key_of(5, 6), np.empty(30, dtype=np.uint32)
    for known, now in [(0, 4), (4, 4), (4, 17), (17, 30)]:
        kernels.grow_permutation(destination, known, now, key, stocks(30))
    assert tuple(destination.tolist()) == permutation(30, 5, 6)


def test_books_and_seeds_draw_differently() -> None:
    assert len({permutation(40, seed, book) for seed in range(5) for book in range(40)}) == 200
