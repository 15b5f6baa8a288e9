"""Scores of a built-in algorithm's model, by a batch transform in the algorithm's own image.

Rows go in as CSV of the features alone, and one score a row comes out in the same order. The model that this makes on
the platform is deleted again, whatever happens; a batch transform leaves nothing else running.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stockpicker_dagster.storage.aws.clients import region
from stockpicker_dagster.training.platforms import Answer, Platform, PlatformFailure
from stockpicker_dagster.training.platforms.attempt_memory import Memory
from stockpicker_dagster.training.platforms.attempts import Work, outcome
from stockpicker_dagster.training.platforms.built_in import CONTENT_TYPE, BuiltInModel, as_csv
from stockpicker_dagster.training.platforms.built_in_images import image_uri
from stockpicker_dagster.training.platforms.hosting import create_model, delete_model
from stockpicker_dagster.training.platforms.jobs import TRANSFORM
from stockpicker_dagster.training.platforms.polling import wait_for

ACCEPT = {"xgboost": "text/csv", "linear-learner": "application/jsonlines"}
"""In which form an algorithm is asked for its scores."""


def score_built_in(platform: Platform, model: BuiltInModel, rows: pl.DataFrame) -> pl.DataFrame:
    """`symbol`, `date` and `score` of each row, by a batch transform in the algorithm's own image.

    The model that this makes on the platform is deleted again, whatever happens. Raises `PlatformFailure` where there
    are not as many scores as rows.
    """
    training = model.training
    body = as_csv(rows, training.features, label=None)
    digest = hashlib.sha256(f"{training.name(1)}\0{model.artifact}\0".encode() + body).hexdigest()[:16]
    name = f"{training.algorithm}-{digest}"
    training.folder.mkdir(parents=True, exist_ok=True)
    given = training.folder / f"{digest}.csv"
    given.write_bytes(body)

    def collect(described: Answer) -> pl.DataFrame:
        at = _scores_of(platform, described["TransformJobName"])
        scores = read_scores(training.algorithm, platform.fetch(f"{at}/{given.name}.out"), rows.height)
        return rows.select("symbol", "date").with_columns(score=pl.Series(scores, dtype=pl.Float64))

    def attempted(attempt: int) -> str:
        return name + (f"-{attempt}" if attempt > 1 else "")

    create_model(platform, model_request(platform, name, model))
    try:
        work = Work(
            TRANSFORM,
            attempted,
            lambda attempt: transform_request(platform, attempted(attempt), name, training.algorithm, given),
            collect,
            memory=Memory(platform, name),
        )
        answer, described = wait_for(outcome(platform, work))
        platform.remove(_scores_of(platform, described["TransformJobName"]))
        platform.unstage(name)
    finally:
        delete_model(platform, name)
        given.unlink(missing_ok=True)
    return answer


def model_request(platform: Platform, name: str, model: BuiltInModel) -> dict[str, Any]:
    """The keyword arguments of `create_model`: the algorithm's image with the job's artifact."""
    return {
        "ModelName": name,
        "PrimaryContainer": {
            "Image": image_uri(model.training.algorithm, region()),
            "ModelDataUrl": model.artifact,
        },
        "ExecutionRoleArn": platform.role,
        "Tags": [{"Key": "stockpicker:purpose", "Value": "scoring"}],
    }


def transform_request(platform: Platform, job: str, model: str, algorithm: str, given: Path) -> dict[str, Any]:
    """The keyword arguments of `create_transform_job`: a line of features in, a line with a score out, in order."""
    return {
        "TransformJobName": job,
        "ModelName": model,
        "BatchStrategy": "MultiRecord",
        "MaxPayloadInMB": 6,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": platform.stage(given, model)}},
            "ContentType": CONTENT_TYPE,
            "SplitType": "Line",
        },
        "TransformOutput": {
            "S3OutputPath": _scores_of(platform, job),
            "Accept": ACCEPT[algorithm],
            "AssembleWith": "Line",
        },
        "TransformResources": platform.transform_resources,
        "Tags": [{"Key": "stockpicker:purpose", "Value": "scoring"}],
    }


def _scores_of(platform: Platform, job: str) -> str:
    return f"{platform.output}/scores/{job}"


def read_scores(algorithm: str, content: bytes, rows: int) -> list[float]:
    """The scores in an answer, one a row: numbers in CSV from XGBoost, JSON lines from the linear learner.

    Raises `PlatformFailure` where they cannot be read, or are not as many as `rows`.
    """
    try:
        if algorithm == "xgboost":
            scores = [float(each) for each in re.split(r"[\s,]+", content.decode().strip()) if each]
        else:
            scores = [float(json.loads(line)["score"]) for line in content.decode().splitlines() if line.strip()]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise PlatformFailure(f"the scores of {algorithm} cannot be read ({error!r})") from error
    if len(scores) != rows or not all(map(np.isfinite, scores)):
        raise PlatformFailure(f"{algorithm} answered {len(scores)} scores, not all of them finite, for {rows} rows")
    return scores
