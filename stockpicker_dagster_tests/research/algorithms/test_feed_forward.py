from itertools import pairwise

import numpy as np
import pytest
import torch

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms.feed_forward import FeedForward


def layers(sizes: list[int], seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=pair), rng.normal(size=pair[1])) for pair in pairwise(sizes)]


def rows(count: int, inputs: int) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(count, inputs)).astype(np.float32)


@pytest.mark.parametrize("sizes", [[5, 1], [5, 4, 1], [3, 8, 6, 4, 2, 7, 1]])
def test_scores_agree_with_torch(sizes: list[int]) -> None:
    made = layers(sizes)
    values = rows(50, sizes[0])
    expected = torch.from_numpy(values).double()
    for place, (weights, biases) in enumerate(made):
        expected = expected @ torch.from_numpy(weights) + torch.from_numpy(biases)
        expected = expected if place == len(made) - 1 else expected.relu()
    np.testing.assert_allclose(FeedForward.of(made).scores(values), expected.squeeze(1), rtol=1e-12, atol=1e-12)


def test_a_row_has_the_same_bytes_whatever_rows_are_beside_it() -> None:
    network, values = FeedForward.of(layers([7, 6, 5, 1])), rows(40, 7)
    whole, told = network.scores(values), network.contributions(values)
    assert network.scores(values[11:13]).tobytes() == whole[11:13].tobytes()
    assert network.contributions(np.asfortranarray(values)[11:13]).tobytes() == told[11:13].tobytes()


def test_contributions_add_up_to_the_difference_from_a_row_of_zeros() -> None:
    for sizes in ([4, 1], [4, 3, 1], [6, 9, 7, 5, 1]):
        network, values = FeedForward.of(layers(sizes)), rows(60, sizes[0])
        nothing = network.scores(np.zeros((1, sizes[0]), np.float32))
        np.testing.assert_allclose(
            network.contributions(values).sum(axis=1) + nothing, network.scores(values), rtol=1e-9, atol=1e-9
        )


def test_contributions_of_a_network_that_never_bends_are_those_of_its_line() -> None:
    first, second = np.array([[1.0, 2.0], [0.5, -1.0]]), np.array([[3.0], [1.0]])
    network = FeedForward.of([(first, np.array([100.0, 100.0])), (second, np.array([0.0]))])
    values = rows(5, 2)
    np.testing.assert_allclose(network.contributions(values), values * (first @ second).T, rtol=1e-6)


def test_layers_that_do_not_fit_are_refused() -> None:
    good = layers([4, 3, 1])
    for bad in (
        [],
        [(np.zeros(4), np.zeros(1))],
        [good[0]],
        [good[1]] * 2,
        [(good[0][0], np.zeros(2)), good[1]],
        [good[0], (np.zeros((3, 2)), np.zeros(2))],
    ):
        with pytest.raises(InvalidInput, match="train it again"):
            FeedForward.of(bad)
