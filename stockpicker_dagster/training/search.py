"""Hyperparameter search: Optuna proposes settings, purged folds of the training data judge them.

Only rows that the final model may learn from are used: each trial is fitted on the dates of a fold and judged by the
rank IC on dates that its labels do not touch. Finished trials are kept as plain JSON beside a training's other state,
so that a stopped search goes on to the same result. Trials of a search are no trials of the verdict: they never see a
day that the strategy is tested on.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.algorithms import (
    UNSUPERVISED,
    Hyperparameter,
    Progress,
    Supervision,
    TrainingStopped,
    Value,
    algorithm,
    require_packages,
    validate_hyperparameters,
)
from stockpicker_dagster.research.algorithms.checkpoints import training_digest
from stockpicker_dagster.research.algorithms.tables import Table
from stockpicker_dagster.research.splits import Fold, purged_folds, purged_walk_forward

Method = Literal["walk_forward", "combinatorial"]
STATE = "search.json"
_INNER_SHARE = 0.2
"""The last part of a fold's training dates, on which an algorithm that needs a validation period chooses."""
_SEVERAL_SIZES = 10.0
"""A positive range whose ends are so many times apart is searched by its logarithm."""


@dataclass(frozen=True)
class SearchSettings:
    """How many trials, judged on how many folds, over which settings.

    `over` names hyperparameters: a number's range as [least, most], or the choices of a word, a yes or no, or a number.
    """

    trials: int
    over: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    method: Method = "walk_forward"
    folds: int = 3

    def as_text(self) -> str:
        """As JSON, as a training job carries it."""
        return json.dumps(asdict(self) | {"over": {key: list(value) for key, value in self.over.items()}})

    @classmethod
    def of_text(cls, text: str) -> "SearchSettings | None":
        """The opposite of `as_text`; None for an empty text. Raises `InvalidInput` for anything else."""
        if not text:
            return None
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise InvalidInput(
                f"the search {text!r} cannot be read ({error}); it is JSON of trials, over, method and folds"
            ) from error


@dataclass(frozen=True)
class Trial:
    """One finished trial: the settings tried, the rank IC on each fold, and their mean, which is compared."""

    number: int
    hyperparameters: dict[str, Value]
    rank_ics: tuple[float, ...]
    rank_ic: float


@dataclass(frozen=True)
class SearchResult:
    """The best settings, and every trial in the order in which it ended."""

    hyperparameters: dict[str, Any]
    trials: tuple[Trial, ...]


def check_search(name: str, hyperparameters: Mapping[str, Any], settings: SearchSettings) -> None:
    """Raises `InvalidInput` for settings that cannot be searched, and `MissingPackage` without Optuna."""
    require_packages("a hyperparameter search", ("optuna",), "search")
    if not settings.over:
        raise InvalidInput(
            "the search has nothing to search over; name hyperparameters under `over`, with their ranges"
        )
    declared = {each.name: each for each in algorithm(name).hyperparameters}
    for key, allowed in settings.over.items():
        if key in hyperparameters:
            raise InvalidInput(f"hyperparameter {key!r} is both given and searched over; leave it out of one of them")
        if key not in declared:
            # Says what is known, and the nearest.
            validate_hyperparameters(name, {key: None})
        if not isinstance(allowed, list | tuple) or len(allowed) < 2:
            raise InvalidInput(
                f"search over {key} {allowed!r} is not allowed; give [least, most], or two choices or more"
            )
        for value in allowed:
            declared[key].check(value)
        if _is_range(declared[key], allowed) and not allowed[0] < allowed[1]:
            raise InvalidInput(f"search over {key} {list(allowed)!r} is reversed; give the least value first")


def search(
    name: str,
    train: pl.DataFrame,
    validation: pl.DataFrame,
    features: Sequence[str],
    label: str,
    hyperparameters: Mapping[str, Any],
    settings: SearchSettings,
    seed: int = 0,
    horizon_days: int = 1,
    supervision: Supervision = UNSUPERVISED,
) -> SearchResult:
    """The settings of the best mean rank IC over the folds of both tables' dates.

    Trial k draws from random numbers of its own, given the trials before it, so that a search that was stopped goes on
    as if it had not been. `supervision` hears of every trial, and its `checkpoints` keep them. Settings that an
    algorithm refuses are a trial without a rank IC. Raises `InvalidInput` as `check_search` does, for too few dates,
    and if no trial has a rank IC.
    """
    check_search(name, hyperparameters, settings)
    rows = pl.concat([train, validation]).sort("date", "symbol")
    dates = rows["date"].unique().sort().to_list()
    folds = (
        purged_walk_forward(dates, settings.folds, horizon_days)
        if settings.method == "walk_forward"
        else purged_folds(dates, settings.folds, horizon_days)
    )
    digest = training_digest(
        algorithm=name,
        tables=[Table.of(part, features, label, "searched").digest() for part in (train, validation)],
        given=dict(hyperparameters),
        settings={**asdict(settings), "over": {key: list(value) for key, value in settings.over.items()}},
        seed=seed,
        horizon=horizon_days,
    )
    done = _kept(supervision.checkpoints, digest)
    while len(done) < settings.trials:
        proposed = _proposed(name, settings, done, seed)
        given = {**hyperparameters, **proposed}
        rank_ics = _rank_ics(name, rows, folds, features, label, given, seed, horizon_days, supervision)
        mean = math.fsum(rank_ics) / len(rank_ics) if rank_ics else math.nan
        done.append(Trial(len(done) + 1, proposed, tuple(rank_ics), mean))
        _keep(supervision.checkpoints, digest, done)
        supervision.progress(Progress(len(done), settings.trials, math.nan, mean))
        if supervision.stop():
            raise TrainingStopped(f"the search stopped after {len(done)} of {settings.trials} trials")
    judged = [trial for trial in done if math.isfinite(trial.rank_ic)]
    if not judged:
        raise InvalidInput(
            f"none of {len(done)} trials of the search has a rank IC; search over other settings, or on a longer period"
        )
    best = max(judged, key=lambda trial: trial.rank_ic)
    return SearchResult({**hyperparameters, **best.hyperparameters}, tuple(done))


def _is_range(declared: Hyperparameter, allowed: Sequence[Any]) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in allowed)
    return declared.type in (int, float) and declared.longest is None and len(allowed) == 2 and numbers


def _proposed(name: str, settings: SearchSettings, done: Sequence[Trial], seed: int) -> dict[str, Value]:
    """What Optuna proposes next, given the finished trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    declared = {each.name: each for each in algorithm(name).hyperparameters}
    spaces = {key: _space(declared[key], allowed) for key, allowed in settings.over.items()}
    sampler = optuna.samplers.TPESampler(seed=int(np.random.default_rng([seed, len(done)]).integers(2**31)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in done:
        values = {key: _key(value) for key, value in trial.hyperparameters.items()}
        state = optuna.trial.TrialState
        judged = math.isfinite(trial.rank_ic)
        study.add_trial(
            optuna.trial.create_trial(
                params=values,
                distributions=spaces,
                value=trial.rank_ic if judged else None,
                state=state.COMPLETE if judged else state.FAIL,
            )
        )
    drawn = study.ask(spaces).params
    return {key: declared[key].check(_value(value)) for key, value in drawn.items()}


def _space(declared: Hyperparameter, allowed: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not _is_range(declared, allowed):
        return CategoricalDistribution([_key(value) for value in allowed])
    least, most = allowed
    logarithmic = least > 0 and most / least >= _SEVERAL_SIZES
    if declared.type is int:
        return IntDistribution(int(least), int(most), log=logarithmic)
    return FloatDistribution(float(least), float(most), log=logarithmic)


def _key(value: Any) -> Any:
    """Lists as texts, because Optuna's choices are scalars."""
    return "json:" + json.dumps(value) if isinstance(value, list | tuple) else value


def _value(key: Any) -> Any:
    return json.loads(key.removeprefix("json:")) if isinstance(key, str) and key.startswith("json:") else key


def _rank_ics(
    name: str,
    rows: pl.DataFrame,
    folds: Sequence[Fold],
    features: Sequence[str],
    label: str,
    given: Mapping[str, Any],
    seed: int,
    horizon_days: int,
    supervision: Supervision,
) -> list[float]:
    """The rank IC on each fold; none if the algorithm refuses the settings."""
    quiet = replace(supervision, progress=_unheard, checkpoints=None, stop=_never)
    rank_ics = []
    for fold in folds:
        known, chosen = _inner(fold.train, horizon_days)
        try:
            model = algorithm(name).fit(
                rows.filter(pl.col("date").is_in(known)),
                rows.filter(pl.col("date").is_in(chosen)),
                features,
                label,
                given,
                seed,
                quiet,
                horizon_days=horizon_days,
            )
        except InvalidInput:
            return []
        judged = Table.of(rows.filter(pl.col("date").is_in(fold.test)), features, label, "searched")
        rank_ics.append(judged.rank_ic(model.predict(judged.features, features)))
    return rank_ics


def _inner(dates: Sequence[date], horizon_days: int) -> tuple[list[date], list[date]]:
    """A fold's training dates, apart from those that an algorithm validates on, purged between the two."""
    first = len(dates) - max(1, round(_INNER_SHARE * len(dates)))
    known = list(dates[: max(0, first - 1 - horizon_days)])
    if not known:
        raise InvalidInput(
            f"a fold of the search has only {len(dates)} dates to train on, too few for labels of {horizon_days} "
            "sessions; use fewer folds or longer periods"
        )
    return known, list(dates[first:])


def _unheard(progress: Progress) -> None:
    """Folds of a trial are not steps of the search."""


def _never() -> bool:
    return False


def _kept(folder: Path | None, digest: str) -> list[Trial]:
    if folder is None or not (folder / STATE).is_file():
        return []
    try:
        document = json.loads((folder / STATE).read_text())
        trials = document["trials"] if document["digest"] == digest else []
        return [
            Trial(
                trial["number"],
                trial["hyperparameters"],
                tuple(trial["rank_ics"]),
                math.nan if trial["rank_ic"] is None else trial["rank_ic"],
            )
            for trial in trials
        ]
    except (ValueError, KeyError, TypeError):
        # Not ours, or from another version: the search begins again and replaces it.
        return []


def trials_document(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """The trials as JSON holds them; a rank IC that does not exist is null."""
    return [asdict(trial) | {"rank_ic": trial.rank_ic if math.isfinite(trial.rank_ic) else None} for trial in trials]


def _keep(folder: Path | None, digest: str, trials: Sequence[Trial]) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{STATE}.part"
    unfinished.write_text(json.dumps({"digest": digest, "trials": trials_document(trials)}))
    unfinished.replace(folder / STATE)
