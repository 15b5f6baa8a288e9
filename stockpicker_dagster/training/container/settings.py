"""What a training is told: the hyperparameters of the job, every value of which is a string.

`algorithm` and what else describes the job are read here; all others are the algorithm's own, and are checked by its
declaration. Requests are written with `as_strings`, read with `read_settings`, and come out as they went in.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpicker_dagster.errors import InvalidInput

if TYPE_CHECKING:
    from stockpicker_dagster.research.algorithms import Hyperparameter

OF_THE_JOB = (
    "algorithm",
    "seed",
    "strategy",
    "period",
    "definition",
    "dataset_definition",
    "last_known",
    "search",
    "start_from",
)
"""Names that no algorithm may give to a hyperparameter of its own."""


@dataclass(frozen=True)
class Settings:
    """What is trained, for whom.

    `definition` is the digest of the strategy's form, kept with the model; `dataset_definition` is that of the dataset
    (empty: any). `last_known` is the day after whose close the last label is known, needed only where no channel
    `captions` says it. `search` is that of hyperparameters (`training.search`) as JSON; empty: none. `start_from` is
    the `model_id` of the earlier model in the channel `earlier`, from which learning begins; empty: none. Equal
    settings on equal data give equal models.
    """

    algorithm: str
    hyperparameters: Mapping[str, Any]
    seed: int = 0
    strategy: str = ""
    period: str = ""
    definition: str = ""
    dataset_definition: str = ""
    last_known: str = ""
    search: str = ""
    start_from: str = ""


def as_strings(settings: Settings) -> dict[str, str]:
    """The hyperparameters of a request; texts as they are, everything else as JSON."""
    of_job = {name: getattr(settings, name) for name in OF_THE_JOB if getattr(settings, name) not in ("", 0)}
    if taken := sorted(set(settings.hyperparameters) & set(OF_THE_JOB)):
        raise InvalidInput(f"hyperparameters {taken} have names that describe the job; rename them in the algorithm")
    return {name: _text(value) for name, value in {**of_job, **settings.hyperparameters}.items()}


def read_settings(path: Path) -> Settings:
    """The settings in `hyperparameters.json`. Raises `InvalidInput`, naming what is wrong and what is allowed."""
    # Imported here so that writing a request loads no algorithm.
    from stockpicker_dagster.research.algorithms import algorithm, validate_hyperparameters

    given = _document(path)
    if wrong := sorted(name for name, value in given.items() if not isinstance(value, str)):
        raise InvalidInput(f"{path.name}: every value must be a string; not one: {', '.join(wrong)}")
    if not given.get("algorithm"):
        raise InvalidInput(f"{path.name} names no algorithm; give the hyperparameter 'algorithm', such as 'linear'")
    of_job = {name: value for name, value in given.items() if name in OF_THE_JOB}
    declared = {each.name: each for each in algorithm(given["algorithm"]).hyperparameters}
    own = {
        name: _value(value, declared[name]) if name in declared else value
        for name, value in given.items()
        if name not in OF_THE_JOB
    }
    validate_hyperparameters(given["algorithm"], own)
    seed = of_job.pop("seed", "0")
    if not seed.isdecimal():
        raise InvalidInput(f"hyperparameter seed {seed!r} is not allowed; allowed: a whole number of at least 0")
    return Settings(hyperparameters=own, seed=int(seed), **of_job)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(text: str, declared: "Hyperparameter") -> Any:
    """A setting as it was before it became a string; what cannot be read stays a text, which the check refuses."""
    if text in declared.words or (declared.type is str and declared.longest is None):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read ({error}); the platform writes it before training") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path} holds a {type(document).__name__}; it must be an object of strings")
    return document
