"""How a strategy's days are scored from a Dagster step: here, or by the platform that its form names.

What a score is, and that it is the same either way, is `training.scoring`'s; deploying and deleting is that of
`training.platforms`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from stockpicker_dagster.components.job_log import JobLog
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.training.inference import Scored
from stockpicker_dagster.training.models import StoredModel, check_model, load_model
from stockpicker_dagster.training.platforms import platform
from stockpicker_dagster.training.platforms.costs import estimate
from stockpicker_dagster.training.platforms.polling import wait_for_all
from stockpicker_dagster.training.platforms.scoring import Inferred, infer
from stockpicker_dagster.training.platforms.scoring_requests import SERVERLESS, How
from stockpicker_dagster.training.scoring import Infer

_AT_ONCE = 4
"""So many models are asked at a time: quotas of new accounts are small."""


@dataclass
class Scorers:
    """The models of a run's days, how they are asked, and, afterwards, metadata about that."""

    models: Mapping[str, StoredModel]
    infer: Infer | None = None
    metadata: dict[str, Any] = field(default_factory=lambda: {"scored_by": "process"})


def scorers(
    context: dg.AssetExecutionContext,
    name: str,
    form: StrategyForm,
    features: tuple[str, ...],
    folders: Mapping[str, Path],
    definitions: Mapping[str, str],
) -> Scorers:
    """The models in `folders`, by period, each checked against its definition; loaded only if they are asked here."""
    how = form.training.scored_by
    if how == "process":
        loaded = {period: load_model(path, name, features, definitions[period]) for period, path in folders.items()}
        return Scorers(loaded)
    checked = {period: check_model(path, name, features, definitions[period]) for period, path in folders.items()}
    found = Scorers(checked)
    found.infer = lambda rows: _asked(context, form, how, folders, found, rows)
    return found


def _asked(
    context: dg.AssetExecutionContext,
    form: StrategyForm,
    how: How,
    folders: Mapping[str, Path],
    found: Scorers,
    rows: Mapping[str, pl.DataFrame],
) -> dict[str, Scored]:
    """Asks every model once, several at a time; a cancelled run ends all of them, and deletes what was made."""
    place = platform(form.training.runs_on, **form.training.platform_settings)
    works = {
        period: infer(
            place,
            how,
            form.owner,
            found.models[period],
            folders[period],
            of_period,
            JobLog(context, f"scores of {period}"),
            context.log.info,
        )
        for period, of_period in rows.items()
    }
    said: dict[str, Inferred] = wait_for_all(works, _AT_ONCE)
    last = said[max(said)]
    seconds = sum(each.seconds for each in said.values())
    kind = {"transform": place.transform_resources, "endpoint": place.hosting_resources}.get(how, SERVERLESS)
    found.metadata = {
        "scored_by": how,
        "platform": place.name,
        "scoring_name": last.name,
        "scoring_seconds": seconds,
        **estimate(place, kind, seconds),
    }
    return {period: each.scored for period, each in said.items()}
