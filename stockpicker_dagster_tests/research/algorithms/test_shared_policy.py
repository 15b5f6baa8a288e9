import numpy as np
import pytest
import torch

from stockpicker_dagster.research.algorithms.long_short_environment import CrossSections, Terms, environment_class
from stockpicker_dagster.research.algorithms.shared_policy import PACE, shared_policies
from stockpicker_dagster_tests.research.algorithms.traded import FEATURES, traded


@pytest.fixture(scope="module", params=[0, 1], ids=["actor-critic", "soft"])
def policy(request: pytest.FixtureRequest) -> torch.nn.Module:
    market = CrossSections.of(traded(1, 5, 6), FEATURES, "label", "training", 1)
    environment = environment_class()(market, Terms(), 3)
    torch.manual_seed(0)
    made = shared_policies()[request.param](
        environment.observation_space, environment.action_space, lambda _: 0.01, widths=[5]
    )
    with torch.no_grad():
        made.scorer.inertia.fill_(0.5 / PACE)
    return made


def seen(stocks: int, seed: int = 0) -> torch.Tensor:
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, stocks, 6)).astype(np.float32))
    values[..., -1] = 1.0
    return values


def test_any_number_of_stocks_is_scored_each_by_itself(policy: torch.nn.Module) -> None:
    many = seen(11)
    with torch.no_grad():
        whole = policy.scorer(many)[0]
        np.testing.assert_allclose(policy.scorer(many[:, 3:5])[0], whole[3:5], rtol=1e-5, atol=1e-6)
        order = torch.randperm(11)
        np.testing.assert_allclose(policy.scorer(many[:, order])[0], whole[order], rtol=1e-5, atol=1e-6)


def test_what_is_held_counts_by_inertia(policy: torch.nn.Module) -> None:
    one, two = seen(6), seen(6)
    two[..., -2] += 1.0
    with torch.no_grad():
        np.testing.assert_allclose(policy.scorer(two) - policy.scorer(one), 0.5, atol=1e-6)


def test_a_row_without_a_stock_has_no_score(policy: torch.nn.Module) -> None:
    gap = seen(6)
    gap[0, 4, -1] = 0.0
    with torch.no_grad():
        assert policy.scorer(gap)[0, 4] == 0.0


def test_the_number_of_parameters_does_not_depend_on_the_number_of_stocks(policy: torch.nn.Module) -> None:
    assert sum(each.numel() for each in policy.scorer.parameters()) == (4 * 5 + 5) + (5 + 1) + 1
