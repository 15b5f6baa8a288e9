import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import validate_hyperparameters
from stockpicker_dagster.research.algorithms.hyperparameters import Hyperparameter, check_settings

LAYERS = Hyperparameter("layers", int, 3, "hidden layers", "layers", minimum=1, maximum=9)
WIDTHS = Hyperparameter("widths", int, (32, 16), "units of each layer", "units", minimum=1, longest=3)
FLAG = Hyperparameter("early", bool, True, "stop early", "yes or no")
LOSS = Hyperparameter("loss", str, "mse", "what is minimized", "name", words=("mse", "huber"))
CLIP = Hyperparameter("clip", float, 1.0, "where it bends", "deviations", only_with=("loss", ("huber",)))


def test_an_unknown_hyperparameter_is_named_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="'alpa' of algorithm 'linear' is unknown; did you mean 'alpha'"):
        validate_hyperparameters("linear", {"alpa": 1.0})


@pytest.mark.parametrize("value", [-0.1, "large", float("nan"), float("inf"), None, True, [1.0]])
def test_a_value_that_is_not_allowed_is_named_with_what_is(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"alpha .* is not allowed; allowed: float of at least 0 or 'auto'"):
        validate_hyperparameters("linear", {"alpha": value})


def test_each_kind_of_hyperparameter_takes_its_own_values() -> None:
    assert LAYERS.check(4.0) == 4
    assert isinstance(LAYERS.check(4.0), int)
    assert FLAG.check(False) is False
    assert LOSS.check("huber") == "huber"
    for declared, wrong in ((LAYERS, 0), (LAYERS, 10), (LAYERS, 2.5), (FLAG, 1), (LOSS, "mae"), (LOSS, 1)):
        with pytest.raises(InvalidInput, match=f"hyperparameter {declared.name} {wrong!r}"):
            declared.check(wrong)
    assert LAYERS.allowed == "int of at least 1 and at most 9"
    assert LOSS.allowed == "'mse' or 'huber'"


def test_a_list_has_its_length_and_each_member_its_range() -> None:
    assert WIDTHS.check([8.0, 4]) == [8, 4]
    assert WIDTHS.check(WIDTHS.default) == [32, 16]
    for wrong in ([], [1, 2, 3, 4], [0], [2.5], 32, "32", [[1]]):
        with pytest.raises(InvalidInput, match="allowed: list of 1 to 3, each int of at least 1"):
            WIDTHS.check(wrong)


def test_a_setting_that_means_nothing_beside_the_others_is_absent_and_refused_if_given() -> None:
    declared = (LOSS, CLIP)
    assert check_settings("mine", declared) == {"loss": "mse"}
    assert check_settings("mine", declared, {"loss": "huber"}) == {"loss": "huber", "clip": 1.0}
    with pytest.raises(InvalidInput, match="clip 2 means nothing with loss 'mse'; leave it out, or give loss 'huber'"):
        check_settings("mine", declared, {"clip": 2})
