"""A trained model as it is stored: the algorithm's artifact beside a `model.json` that says where it comes from.

`model_id` is a hash of strategy, period, data and code: equal inputs give the same id and the same bytes. Loading
checks that a model is used by its own strategy and on its own features; `training.scoring` checks that everything it
was trained on was known before.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from stockpicker_dagster.code_version import code_version
from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.research.algorithms import UNSUPERVISED, Algorithm, Supervision, algorithm
from stockpicker_dagster.storage.lake import Bundle
from stockpicker_dagster.training.datasets import LABEL, read_captions, read_table
from stockpicker_dagster.training.search import STATE, SearchSettings, trials_document
from stockpicker_dagster.training.search import search as run_search

MODEL = "model.json"


class WrongModel(StockPickerError):
    """A model was about to be used where it does not belong."""


@dataclass(frozen=True)
class StoredModel:
    """A model that was checked, and not loaded: what `model.json` says of it."""

    model_id: str
    strategy: str
    period: str
    features: tuple[str, ...]
    last_known: date


@dataclass(frozen=True)
class TrainedModel(StoredModel):
    """A model that is ready to score, with what `model.json` says of it."""

    algorithm: Algorithm


@dataclass(frozen=True)
class EarlierModel:
    """A stored model that another one begins from, by its folder and its `model_id`."""

    folder: Path
    model_id: str


def train_model(
    strategy: str,
    period: str,
    dataset: Path,
    name: str,
    hyperparameters: dict[str, Any],
    seed: int,
    definition: str = "",
    dataset_definition: str | None = None,
    supervision: Supervision = UNSUPERVISED,
    search: SearchSettings | None = None,
    start_from: EarlierModel | None = None,
) -> Bundle:
    """Fits the algorithm called `name` on a stored dataset and returns the files of the model.

    `definition` is that of the strategy's form, kept with the model. With `search`, the best settings of a search over
    folds of the training and validation days are fitted, and `search.json` lists every trial. With `start_from`,
    learning begins where that model ended, and the model's identity names it.

    Raises `WrongModel` for a dataset of another definition than `dataset_definition` (None: any), or an earlier model
    that this one cannot begin from, and `TrainingStopped` if `supervision` asks for it.
    """
    captions = check_dataset(dataset, strategy, period, dataset_definition)
    earlier = None if start_from is None else _load_earlier(start_from, strategy, name, captions)
    train, validation = read_table(dataset, "train"), read_table(dataset, "validation")
    horizon = int(captions.get("horizon_days") or 1)
    used, trials = hyperparameters, {}
    if search is not None:
        found = run_search(
            name, train, validation, captions["features"], LABEL, hyperparameters, search, seed, horizon, supervision
        )
        used = found.hyperparameters
        trials = {STATE: (json.dumps(trials_document(found.trials), indent=1) + "\n").encode()}
    fitted = algorithm(name).fit(
        train,
        validation,
        captions["features"],
        LABEL,
        used,
        seed,
        supervision,
        start_from=earlier,
        horizon_days=horizon,
    )
    identity = {
        "strategy": strategy,
        "period": period,
        "algorithm": name,
        "hyperparameters": hyperparameters,
        "seed": seed,
        "definition": definition,
        "data_version": captions["data_version"],
        "code_version": code_version(),
        **({} if search is None else {"search": json.loads(search.as_text())}),
        **({} if start_from is None else {"start_from": start_from.model_id}),
    }
    model_id = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    with tempfile.TemporaryDirectory() as folder:
        fitted.save(Path(folder))
        artifact = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    description = {
        **identity,
        "model_id": model_id,
        "features": captions["features"],
        "chosen": fitted.chosen,
        "metrics": {name: value if math.isfinite(value) else None for name, value in fitted.metrics.items()},
        "train": captions["train"],
        "validation": captions["validation"],
        "last_known": captions["last_known"],
    }
    return Bundle({**artifact, **trials, MODEL: (json.dumps(description, indent=2, sort_keys=True) + "\n").encode()})


def check_dataset(dataset: Path, strategy: str, period: str, definition: str | None) -> dict[str, Any]:
    """The captions of a stored dataset. Raises `WrongModel` if it was made under another `definition` (None: any)."""
    captions = read_captions(dataset)
    if definition not in (None, captions.get("definition")):
        raise WrongModel(
            f"the definition of {strategy!r} changed since its dataset of {period} was made; make the dataset again "
            "together with the model"
        )
    return captions


def _load_earlier(earlier: EarlierModel, strategy: str, name: str, captions: dict[str, Any]) -> Algorithm:
    """The model to begin from, if it is the one meant, of this strategy, and knows nothing later."""
    description = describe_stored_model(earlier.folder)
    if not algorithm(name).warm_starts:
        raise WrongModel(f"algorithm {name!r} does not start from an earlier model; leave the warm start out")
    if (description["model_id"], description["algorithm"]) != (earlier.model_id, name):
        raise WrongModel(
            f"the model to start from is {description['model_id']} of {description['algorithm']!r}, and "
            f"{earlier.model_id} of {name!r} is asked for; train the model of the period before again"
        )
    if description["last_known"] > captions["last_known"]:
        raise WrongModel(
            f"the model to start from has learned what was known by {description['last_known']}, and this one may know "
            f"only what was by {captions['last_known']}; start from an earlier one"
        )
    return load_model(earlier.folder, strategy, captions["features"]).algorithm


def describe_model(bundle: Bundle) -> dict[str, Any]:
    """What `model.json` says, from the files before they are stored."""
    content = bundle.files[MODEL]
    assert isinstance(content, bytes)
    description: dict[str, Any] = json.loads(content)
    return description


def describe_stored_model(folder: Path) -> dict[str, Any]:
    """What `model.json` says, from a stored model. Raises `InvalidInput` if it cannot be read."""
    try:
        description: dict[str, Any] = json.loads((folder / MODEL).read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"the model {folder / MODEL} cannot be read ({error}); train it again") from error
    return description


def load_model(folder: Path, strategy: str, features: Sequence[str], definition: str | None = None) -> TrainedModel:
    """The model in `folder`. Raises `WrongModel` if another strategy, list of features or `definition` made it."""
    checked = check_model(folder, strategy, features, definition)
    named = str(describe_stored_model(folder)["algorithm"])
    return TrainedModel(**vars(checked), algorithm=algorithm(named).load(folder))


def check_model(folder: Path, strategy: str, features: Sequence[str], definition: str | None = None) -> StoredModel:
    """The model in `folder`, not loaded. Raises `WrongModel` as `load_model` does."""
    description = describe_stored_model(folder)
    if description["strategy"] != strategy:
        raise WrongModel(
            f"the model {description['model_id']} belongs to strategy {description['strategy']!r}, not to "
            f"{strategy!r}; train {strategy!r} for period {description['period']}"
        )
    if description["features"] != list(features):
        changed = sorted(set(description["features"]) ^ set(features)) or "their order"
        raise WrongModel(
            f"the features of {strategy!r} changed since the model of {description['period']} was trained: {changed}; "
            "train it again"
        )
    if definition not in (None, description.get("definition")):
        raise WrongModel(
            f"the definition of {strategy!r} changed since the model of {description['period']} was trained; "
            "train it again"
        )
    return StoredModel(
        model_id=description["model_id"],
        strategy=strategy,
        period=description["period"],
        features=tuple(features),
        last_known=date.fromisoformat(description["last_known"]),
    )
