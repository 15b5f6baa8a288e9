"""The registry of algorithms and the declarations of hyperparameters (the package's `__init__`)."""

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import Hyperparameter, algorithm, validate_hyperparameters
from stockpicker_dagster.research.algorithms.linear import Ridge


def test_an_algorithm_is_found_by_its_own_name() -> None:
    assert algorithm("linear") is Ridge
    assert Ridge.name == "linear"


def test_an_unknown_algorithm_is_named_with_the_known() -> None:
    with pytest.raises(InvalidInput, match="'ridge' is unknown; known: linear"):
        algorithm("ridge")


def test_defaults_fill_what_is_not_given() -> None:
    assert validate_hyperparameters("linear") == {"alpha": "auto"}
    assert validate_hyperparameters("linear", {"alpha": 3}) == {"alpha": 3.0}
    assert isinstance(validate_hyperparameters("linear", {"alpha": 3})["alpha"], float)


def test_an_unknown_hyperparameter_is_named_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="'alpa' of algorithm 'linear' is unknown; did you mean 'alpha'"):
        validate_hyperparameters("linear", {"alpa": 1.0})


@pytest.mark.parametrize("value", [-0.1, "large", float("nan"), float("inf"), None, True, [1.0]])
def test_a_value_that_is_not_allowed_is_named_with_what_is(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"alpha .* is not allowed; allowed: float of at least 0 or 'auto'"):
        validate_hyperparameters("linear", {"alpha": value})


def test_each_kind_of_hyperparameter_takes_its_own_values() -> None:
    layers = Hyperparameter("layers", int, 3, "hidden layers", "layers", minimum=1, maximum=9)
    flag = Hyperparameter("early", bool, True, "stop early", "yes or no")
    loss = Hyperparameter("loss", str, "mse", "what is minimized", "name", words=("mse", "huber"))
    assert layers.check(4.0) == 4
    assert isinstance(layers.check(4.0), int)
    assert flag.check(False) is False
    assert loss.check("huber") == "huber"
    for declared, wrong in ((layers, 0), (layers, 10), (layers, 2.5), (flag, 1), (loss, "mae"), (loss, 1)):
        with pytest.raises(InvalidInput, match=f"hyperparameter {declared.name} {wrong!r}"):
            declared.check(wrong)
    assert layers.allowed == "int of at least 1 and at most 9"
    assert loss.allowed == "'mse' or 'huber'"
