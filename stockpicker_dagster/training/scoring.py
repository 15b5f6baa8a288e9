"""Scores: every member of the universe ranked against the universe's mean, by the model that serves the day.

Each day is scored by itself, so that a day's bytes do not depend on the range it was scored in.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date

import numpy as np
import polars as pl

from stockpicker_dagster.training.inference import CONTRIBUTIONS, Scored, score_rows
from stockpicker_dagster.training.models import StoredModel, TrainedModel, WrongModel

Infer = Callable[[Mapping[str, pl.DataFrame]], Mapping[str, Scored]]
"""Asks the model of each period about rows (`symbol`, `date`, features), and answers in their order."""

PREDICTIONS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "score": pl.Float64(),
    "rank": pl.Int32(),
    "model_id": pl.String(),
    "contributions": pl.List(pl.Struct({"feature": pl.String(), "value": pl.Float32()})),
}
"""score: the model's, less the mean of the day's members, in units of the label, known after the close of `date`; rank:
1 is the most attractive (most undervalued); contributions: the features that moved the score most, largest first."""


class MissingModel(WrongModel):
    """A day inside the served range has no model; an older one is never taken in its place."""


def score_days(
    scaled: pl.DataFrame,
    days: Sequence[date],
    features: Sequence[str],
    first_served: date,
    models: Mapping[str, StoredModel],
    period_of: Callable[[date], str],
    infer: Infer | None = None,
) -> pl.DataFrame:
    """The predictions of `days`, in `PREDICTIONS_SCHEMA`, sorted by date, then rank.

    `scaled` holds the members' scaled features. Days before `first_served` have no rows. `infer` asks models that are
    elsewhere; None asks `TrainedModel`s here, day by day. Raises `MissingModel` for a later day whose period has no
    model, and `WrongModel` for one that was trained on anything not known before it.
    """
    by_day = {key[0]: part for key, part in scaled.partition_by("date", as_dict=True).items()}
    served: dict[date, StoredModel] = {}
    periods: dict[str, list[date]] = {}
    for day in days:
        if day < first_served or day not in by_day:
            continue
        period = period_of(day)
        if period not in models:
            raise MissingModel(
                f"{day} is served by the model of {period}, which is not trained; train that period first"
            )
        if models[period].last_known >= day:
            raise WrongModel(
                f"the model of {period} knows labels up to {models[period].last_known} and may not score {day}; "
                "train it again with its own split"
            )
        served[day] = models[period]
        periods.setdefault(period, []).append(day)
    if not served:
        return pl.DataFrame(schema=PREDICTIONS_SCHEMA)

    def members(day: date) -> pl.DataFrame:
        return by_day[day].select("symbol", "date", *features).sort("symbol")

    said = None if infer is None else _answers(members, periods, infer)
    ranked = [
        _rank(of_day := members(day), _score_here(of_day, features, model) if said is None else said[day], model)
        for day, model in served.items()
    ]
    return _with_contributions(pl.concat(ranked), features)


def _score_here(members: pl.DataFrame, features: Sequence[str], model: StoredModel) -> Scored:
    if not isinstance(model, TrainedModel):
        raise WrongModel(f"the model {model.model_id} is not loaded, and nobody else was asked")
    return score_rows(model.algorithm, members.select(features).to_numpy().astype(np.float32, order="C"), features)


def _answers(
    members: Callable[[date], pl.DataFrame], periods: Mapping[str, Sequence[date]], infer: Infer
) -> dict[date, Scored]:
    """What the models say of each day; every model is asked once, for all of its days."""
    rows = {period: pl.concat([members(day) for day in days]) for period, days in periods.items()}
    answers, said = infer(rows), dict[date, Scored]()
    for period, days in periods.items():
        whole, heights, first = answers[period], dict(rows[period].group_by("date").len().rows()), 0
        for day in days:
            own = slice(first, first + heights[day])
            said[day] = Scored(whole.scores[own], whole.named[own], whole.values[own])
            first = own.stop
    return said


def _rank(members: pl.DataFrame, said: Scored, model: StoredModel) -> pl.DataFrame:
    """One day's rows, with the places of the named features instead of their names."""
    scores = said.scores - said.scores.sum() / len(said.scores)
    # Equal scores are ranked by symbol, so that a rank never depends on the order of the rows that came in.
    order = np.lexsort((np.arange(len(scores)), -scores))
    named, values = said.named[order], said.values[order]
    return pl.DataFrame(
        {
            "symbol": members["symbol"].gather(order),
            "date": members["date"],
            "score": scores[order],
            "rank": np.arange(1, len(scores) + 1, dtype=np.int32),
            "model_id": [model.model_id] * len(scores),
            **{f"feature_{place}": named[:, place] for place in range(named.shape[1])},
            **{f"value_{place}": values[:, place] for place in range(named.shape[1])},
        }
    ).cast({"rank": pl.Int32})


def _with_contributions(scored: pl.DataFrame, features: Sequence[str]) -> pl.DataFrame:
    """Puts the names in the place of places, for all days at once: Python lists of a million rows take gigabytes."""
    names = pl.Series("feature", features, dtype=pl.String)
    reasons = [
        pl.struct(
            pl.lit(names).gather(pl.col(f"feature_{place}")).alias("feature"), pl.col(f"value_{place}").alias("value")
        )
        for place in range(CONTRIBUTIONS)
        if f"feature_{place}" in scored.columns
    ]
    return scored.with_columns(pl.concat_list(reasons).alias("contributions")).select(
        pl.col(name).cast(kind) for name, kind in PREDICTIONS_SCHEMA.items()
    )
