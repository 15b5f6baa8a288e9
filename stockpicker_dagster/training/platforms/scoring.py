"""Deploy, infer, delete: rows are scored by a model of a platform, of which nothing is left afterwards.

By batch transform nothing stays up at all; an endpoint, serverless or real-time, is deleted on success, failure and
cancellation. What a killed process leaves, `reaper` finds by tag and age.
"""

import hashlib
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from stockpicker_dagster.training.inference import Scored, answer_columns, scored_of
from stockpicker_dagster.training.models import StoredModel
from stockpicker_dagster.training.platforms import Answer, Platform, PlatformFailure, polling
from stockpicker_dagster.training.platforms.attempt_memory import Memory
from stockpicker_dagster.training.platforms.attempts import Work, outcome
from stockpicker_dagster.training.platforms.custom_models import ModelFolder
from stockpicker_dagster.training.platforms.hosting import (
    BODY,
    SERVERLESS_BODY,
    create_endpoint,
    create_endpoint_config,
    create_model,
    delete_deployment,
    in_service,
    invoke_in_batches,
)
from stockpicker_dagster.training.platforms.jobs import TRANSFORM
from stockpicker_dagster.training.platforms.polling import Waiting
from stockpicker_dagster.training.platforms.scoring_requests import How, Scoring

_log = logging.getLogger(__name__)
MOST_SECONDS = 5_400.0
"""So long one transform may take; what is older than that and a little more is nobody's, and the reaper's."""
ROWS, INPUTS = "rows.csv", "inputs"
_UNSURE_LOOKS = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Inferred:
    """What a model said of the rows, in their order, by which means, and for how many seconds it was up."""

    scored: Scored
    name: str
    seconds: float


def infer(
    platform: Platform,
    how: How,
    owner: str,
    model: StoredModel,
    files: Path,
    rows: pl.DataFrame,
    heard: Callable[[str], None] = lambda line: None,
    say: Say = _log.info,
) -> Waiting[Inferred]:
    """Scores `rows` (`symbol`, `date`, and the model's features) by the stored model in `files`.

    Raises `PlatformFailure`, with what went wrong and the way out; whatever is raised, what was made for it is deleted.
    """
    table = rows.select("symbol", "date", *model.features)
    if (doubled := table.height - table.select("symbol", "date").n_unique()) > 0:
        raise PlatformFailure(f"{doubled} rows name a symbol and a day twice, and could not be told apart")
    folder = ModelFolder(platform, owner, model.model_id)
    content = table.write_csv(include_header=False).encode()
    digest = hashlib.sha256(content).hexdigest()
    scoring = Scoring(platform, model, folder, folder.artifact(files), how, digest)
    if how == "transform":
        return (yield from _by_transform(scoring, table, content, heard, say))
    return (yield from _by_endpoint(scoring, table, say))


def _by_transform(
    scoring: Scoring, rows: pl.DataFrame, content: bytes, heard: Callable[[str], None], say: Say
) -> Waiting[Inferred]:
    platform, name = scoring.platform, scoring.name()
    source = f"{scoring.folder.location}/{INPUTS}/{name}/{ROWS}"

    def request(attempt: int) -> dict[str, Any]:
        platform.store(source, content)
        return scoring.transform_request(attempt, source)

    def collect(job: Answer) -> Scored:
        output = job["TransformOutput"]["S3OutputPath"].rstrip("/")
        return _aligned(platform.fetch(f"{output}/{ROWS}.out"), rows, scoring.model.features)

    memory = Memory(platform, name)
    work = Work(TRANSFORM, scoring.name, request, collect, MOST_SECONDS, "score fewer days at once", memory)
    try:
        create_model(platform, scoring.model_request())
        scored, job = yield from outcome(platform, work, heard, say)
        platform.remove(source)
    finally:
        _surely(lambda: delete_deployment(platform, name, say, endpoint=False))
    ran = job.get("TransformEndTime"), job.get("TransformStartTime") or job.get("CreationTime")
    seconds = (ran[0] - ran[1]).total_seconds() if ran[0] and ran[1] else 0.0
    return Inferred(scored, job["TransformJobName"], seconds)


def _by_endpoint(scoring: Scoring, rows: pl.DataFrame, say: Say) -> Waiting[Inferred]:
    platform, name, features = scoring.platform, scoring.name(), scoring.model.features
    most = SERVERLESS_BODY if scoring.how == "serverless" else BODY
    began, seen = polling.clock(), False
    try:
        create_model(platform, scoring.model_request())
        create_endpoint_config(platform, scoring.endpoint_config_request())
        create_endpoint(platform, scoring.endpoint_request())
        seen = True
        say(f"the endpoint {name} is being created")
        yield from in_service(platform, name)
        answer = yield from invoke_in_batches(platform, name, rows, features, most)
        scored = _joined(answer, rows, features)
    finally:
        _surely(lambda: delete_deployment(platform, name, say, 1 if seen else _UNSURE_LOOKS))
    return Inferred(scored, name, polling.clock() - began)


def _surely(delete: Callable[[], object]) -> None:
    """Deletes; if that is interrupted, as by a run that is cancelled just then, it is done before the end."""
    try:
        delete()
    except BaseException:
        delete()
        raise


def _aligned(content: bytes, rows: pl.DataFrame, features: tuple[str, ...]) -> Scored:
    """The output of a transform, in the order of `rows`. Raises `PlatformFailure` unless it is all of it."""
    schema = {"symbol": pl.String(), "date": pl.Date(), **answer_columns(features)}
    try:
        answer = pl.read_csv(
            io.BytesIO(content), has_header=False, new_columns=list(schema), schema_overrides=list(schema.values())
        )
    except pl.exceptions.PolarsError as error:
        raise PlatformFailure(f"the output is no table of {', '.join(schema)} ({error})") from error
    if answer.columns != list(schema):
        raise PlatformFailure(f"the output has {answer.width} columns; asked for: {', '.join(schema)}")
    return _joined(answer, rows, features)


def _joined(answer: pl.DataFrame, rows: pl.DataFrame, features: tuple[str, ...]) -> Scored:
    """The answers in the order of `rows`, each by its symbol and day. Raises `PlatformFailure` if one is lacking."""
    keys = ["symbol", "date"]
    whole = rows.select(keys).join(answer, on=keys, how="left", maintain_order="left")
    lacking = whole.filter(pl.any_horizontal(pl.exclude(keys).is_null()))
    if answer.height != rows.height or whole.height != rows.height or lacking.height:
        first = (
            f"; {lacking['symbol'][0]} on {lacking['date'][0]} is the first that lacks one" if lacking.height else ""
        )
        raise PlatformFailure(
            f"{rows.height} rows were sent and {answer.height} answered{first}: nothing of it is used"
        )
    if not whole["score"].is_finite().all():
        raise PlatformFailure("a score is not finite: nothing of the output is used")
    return scored_of(whole, features)
