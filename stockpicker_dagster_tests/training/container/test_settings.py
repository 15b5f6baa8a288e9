"""Settings travel as strings and arrive as they were; what is wrong is named before anything is read."""

import json
from pathlib import Path
from typing import Any

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import algorithm, known_algorithms
from stockpicker_dagster.training.container.settings import OF_THE_JOB, Settings, as_strings, read_settings


def _written(folder: Path, document: Any) -> Path:
    path = folder / "hyperparameters.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.mark.parametrize("own", [{}, {"alpha": 1.0}, {"alpha": 1}, {"alpha": 1e-17}, {"alpha": "auto"}])
def test_settings_come_out_as_they_went_in(tmp_path: Path, own: dict[str, Any]) -> None:
    settings = Settings("linear", own, 7, "mine", "2023-06-01", "abc", "def", "2023-05-31")
    strings = as_strings(settings)
    assert all(isinstance(value, str) for value in strings.values())
    read = read_settings(_written(tmp_path, strings))
    assert read == settings
    # A model's id counts the types too: 1 and 1.0 are two settings.
    assert [type(value) for value in read.hyperparameters.values()] == [type(value) for value in own.values()]


def test_no_algorithm_has_a_setting_named_like_one_of_the_job() -> None:
    taken = {each.name for name in known_algorithms() for each in algorithm(name).hyperparameters}
    assert taken & set(OF_THE_JOB) == set()
    with pytest.raises(InvalidInput, match=r"\['seed'\] have names that describe the job"):
        as_strings(Settings("linear", {"seed": 1}))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"algorithm": "linear", "alpha": 1.0}, "every value must be a string; not one: alpha"),
        ({"alpha": "1"}, "names no algorithm; give the hyperparameter 'algorithm'"),
        ({"algorithm": "liner"}, "algorithm 'liner' is unknown; known: .*linear"),
        ({"algorithm": "linear", "alhpa": "1"}, "'alhpa' .* is unknown; did you mean 'alpha'"),
        ({"algorithm": "linear", "alpha": "-1"}, "alpha -1 is not allowed; allowed: float of at least 0"),
        ({"algorithm": "linear", "alpha": "NaN"}, "alpha nan is not allowed"),
        ({"algorithm": "linear", "alpha": "wide"}, "alpha 'wide' is not allowed"),
        ({"algorithm": "linear", "seed": "-1"}, "seed '-1' is not allowed; allowed: a whole number"),
        ("[]", "holds a list; it must be an object of strings"),
        ("{", "cannot be read"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, document: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read_settings(_written(tmp_path, document))
    with pytest.raises(InvalidInput, match=r"cannot be read .*the platform writes it before training"):
        read_settings(tmp_path / "absent.json")
