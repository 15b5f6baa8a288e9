"""The registry of algorithms (the package's `__init__`)."""

import sys

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research import algorithms
from stockpicker_dagster.research.algorithms import (
    MissingPackage,
    algorithm,
    check_packages,
    known_algorithms,
    require_packages,
    validate_hyperparameters,
)


@pytest.mark.parametrize("name", known_algorithms())
def test_an_algorithm_is_found_by_its_own_name(name: str) -> None:
    assert algorithm(name).name == name


@pytest.mark.parametrize("name", known_algorithms())
def test_every_hyperparameter_says_what_it_means_and_its_default_is_allowed(name: str) -> None:
    declared = algorithm(name).hyperparameters
    assert len({each.name for each in declared}) == len(declared)
    for each in declared:
        assert each.meaning.endswith("."), each.name
        assert each.unit, each.name
        assert each.check(each.default) == (list(each.default) if isinstance(each.default, tuple) else each.default)
        if each.only_with is not None:
            other = next(one for one in declared if one.name == each.only_with[0])
            assert all(other.check(value) == value for value in each.only_with[1]), each.name


def test_an_unknown_algorithm_is_named_with_the_known() -> None:
    with pytest.raises(InvalidInput, match=f"'ridge' is unknown; known: {', '.join(known_algorithms())}"):
        algorithm("ridge")
    with pytest.raises(InvalidInput, match="'ridge' is unknown"):
        check_packages("ridge")


def test_defaults_fill_what_is_not_given() -> None:
    assert validate_hyperparameters("linear") == {"method": "ridge", "alpha": "auto"}
    given = validate_hyperparameters("linear", {"method": "elastic_net", "alpha": 3})
    assert given == {"method": "elastic_net", "alpha": 3.0, "l1_ratio": 0.5}
    assert isinstance(given["alpha"], float)


def test_a_package_that_is_not_installed_is_named_with_the_way_out() -> None:
    with pytest.raises(MissingPackage, match=r"'x' needs nowhere_1, nowhere_2, which are not installed; .*\[deep\]"):
        require_packages("algorithm 'x'", ("json", "nowhere_1", "nowhere_2"), "deep")
    require_packages("algorithm 'x'", ("json",), "deep")


def test_knowing_the_algorithms_imports_none_of_them() -> None:
    known_algorithms()
    assert not hasattr(algorithms, "torch")
    assert "stockpicker_dagster.research.algorithms" in sys.modules
