"""What scorings left running whose process was killed: found by tag and age, and deleted.

Endpoints bill until they are deleted, so that nothing here rests on the process that made them. Only what carries the
deployment's tag and that of scorings is looked at; what is young may be in use.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from stockpicker_dagster.training.platforms import Platform
from stockpicker_dagster.training.platforms.errors import is_denied, is_missing, refusals
from stockpicker_dagster.training.platforms.hosting import delete_endpoint, delete_endpoint_config, delete_model
from stockpicker_dagster.training.platforms.jobs import ENDED, TRANSFORM
from stockpicker_dagster.training.platforms.scoring_requests import PURPOSE

OLD = timedelta(hours=2)
"""What is older belongs to no scoring that still runs."""
_SECONDS = 60.0


@dataclass(frozen=True)
class Left:
    """One thing that was left: `what` it is, its name, and since when it has been there."""

    what: str
    name: str
    since: datetime

    def __str__(self) -> str:
        return f"{self.what} {self.name}, made {self.since:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class _Kind:
    what: str
    lists: str
    summaries: str
    name: str
    arn: str


# In this order: an endpoint is what bills, and a configuration in use is not deleted.
_KINDS = (
    _Kind("endpoint", "list_endpoints", "Endpoints", "EndpointName", "EndpointArn"),
    _Kind("transform job", "list_transform_jobs", "TransformJobSummaries", "TransformJobName", "TransformJobArn"),
    _Kind("endpoint configuration", "list_endpoint_configs", "EndpointConfigs", "EndpointConfigName",
          "EndpointConfigArn"),
    _Kind("model", "list_models", "Models", "ModelName", "ModelArn"),
)  # fmt: skip


def left_over(platform: Platform, now: datetime, old: timedelta = OLD) -> list[Left]:
    """Everything that scorings made more than `old` before `now` and that is still there, what bills first."""
    return [left for kind in _KINDS for left in _left(platform, kind, now - old)]


def reap(platform: Platform, now: datetime, old: timedelta = OLD) -> list[tuple[Left, bool]]:
    """Deletes all that is left over; each with whether it is gone, or for a job: whether it was told to stop."""
    return [(left, _removed(platform, left)) for left in left_over(platform, now, old)]


def _left(platform: Platform, kind: _Kind, before: datetime) -> Iterator[Left]:
    for each in _listed(platform, kind, before):
        if each["CreationTime"] > before:
            continue
        if kind.what == "transform job" and each[TRANSFORM.status_key] in ENDED:
            continue
        if _is_ours(platform, each[kind.arn]):
            yield Left(kind.what, each[kind.name], each["CreationTime"])


def _listed(platform: Platform, kind: _Kind, before: datetime) -> Iterator[dict[str, Any]]:
    narrowed: dict[str, Any] = {"CreationTimeBefore": before, "MaxResults": 100}
    if kind.what == "transform job":
        narrowed["StatusEquals"] = "InProgress"
    while True:
        with refusals(platform, f"the {kind.what}s of the account were looked through"):
            page = getattr(platform.client, kind.lists)(**narrowed)
        yield from page[kind.summaries]
        if not (token := page.get("NextToken")):
            return
        narrowed["NextToken"] = token


def _is_ours(platform: Platform, arn: str) -> bool:
    wanted = {**platform.marks, **PURPOSE}
    with refusals(platform, f"the tags of {arn} were looked at"):
        try:
            found = platform.client.list_tags(ResourceArn=arn)["Tags"]
        except ClientError as error:
            # What carries other tags may not even be looked at, and what is gone by now is nobody's.
            if is_denied(error) or is_missing(error):
                return False
            raise
    tags = {tag["Key"]: tag["Value"] for tag in found}
    return all(tags.get(key) == value for key, value in wanted.items())


def _removed(platform: Platform, left: Left) -> bool:
    if left.what == "endpoint":
        return delete_endpoint(platform, left.name, _SECONDS)
    if left.what == "endpoint configuration":
        return delete_endpoint_config(platform, left.name, _SECONDS)
    if left.what == "model":
        return delete_model(platform, left.name, _SECONDS)
    try:
        TRANSFORM.stop(platform, left.name)
    except (ClientError, BotoCoreError) as error:
        return is_missing(error)
    return True
