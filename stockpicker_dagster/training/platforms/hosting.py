"""Models, endpoint configurations and endpoints of a platform: made, waited for, asked, and deleted again.

Everything here can be done twice: what is there already and equal is taken, what is gone already counts as deleted.
"""

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl
from botocore.exceptions import BotoCoreError, ClientError

from stockpicker_dagster.training.container.payloads import CSV
from stockpicker_dagster.training.inference import answer_columns
from stockpicker_dagster.training.platforms import Answer, Platform, PlatformFailure, polling
from stockpicker_dagster.training.platforms.errors import (
    already_exists,
    error_code,
    is_denied,
    is_missing,
    is_passing,
    refusals,
)
from stockpicker_dagster.training.platforms.polling import Waiting

_log = logging.getLogger(__name__)
CREATION_SECONDS = 1_200.0
"""So long an endpoint may take to come into service."""
DELETION_SECONDS = 120.0
"""So long a deletion is tried; what is left then, the reaper takes."""
BODY, SERVERLESS_BODY = 6 * 2**20, 4 * 2**20
"""Bytes that one invocation takes at most."""
_LOOKS = 5
"""So often something is looked for that is said to be there."""
_INVOCATIONS = 6
"""So often a piece is sent that could not be answered for no fault of its own."""


def create_model(platform: Platform, request: dict[str, Any]) -> None:
    """Creates a model from a job's artifacts, or takes the equal one that is there."""
    _create(platform, "model", "ModelName", request)


def create_endpoint_config(platform: Platform, request: dict[str, Any]) -> None:
    """Creates the configuration of an endpoint, real-time or serverless, or takes the equal one that is there."""
    _create(platform, "endpoint_config", "EndpointConfigName", request)


def create_endpoint(platform: Platform, request: dict[str, Any]) -> None:
    """Begins an endpoint, or takes the equal one that is there; `in_service` waits for it."""
    _create(platform, "endpoint", "EndpointName", request)


def in_service(platform: Platform, name: str, seconds: float = CREATION_SECONDS) -> Waiting[None]:
    """Waits until an endpoint answers. Raises `PlatformFailure` if it fails, or does not within `seconds`."""
    until, wait = polling.clock() + seconds, platform.poll_seconds
    while True:
        status, reason = _endpoint_status(platform, name)
        if status == "InService":
            return
        if status in ("Failed", "OutOfService", "Deleting"):
            raise PlatformFailure(f"the endpoint {name} is {status}: {reason or 'no reason was given'}")
        if polling.clock() > until:
            raise PlatformFailure(
                f"the endpoint {name} is still {status or 'not there'} after {seconds:g} s, and is deleted; run it "
                "again, or score by transform"
            )
        yield wait
        wait = min(platform.longest_poll_seconds, wait * 1.2)


def invoke_in_batches(
    platform: Platform, name: str, rows: pl.DataFrame, features: tuple[str, ...], most: int = BODY
) -> Waiting[pl.DataFrame]:
    """`symbol`, `date` and what the model answers for each of `rows`, asked in bodies of at most `most` bytes."""
    schema = {"symbol": pl.String(), "date": pl.Date(), **answer_columns(features)}
    answers = [pl.DataFrame(schema=schema)]
    for body in _bodies(rows, most):
        content = yield from _invoked(platform, name, body)
        try:
            answers.append(pl.read_csv(io.BytesIO(content), schema_overrides=schema).select(list(schema)))
        except pl.exceptions.PolarsError as error:
            raise PlatformFailure(f"the endpoint {name} answered what cannot be read ({error})") from error
    return pl.concat(answers)


def delete_endpoint(platform: Platform, name: str, seconds: float = DELETION_SECONDS, looks: int = 1) -> bool:
    """Deletes an endpoint and waits until it is gone; whether it is.

    `looks` is how often it must not be found: one whose creation was not answered may turn up a moment later.
    """
    until, wait = polling.clock() + seconds, platform.poll_seconds
    while True:
        # Asked again and again: an endpoint that is being created cannot be deleted yet.
        if _deleted(platform, "endpoint", "EndpointName", name):
            looks -= 1
        if looks < 1:
            return True
        if polling.clock() > until:
            return False
        polling.pause(wait)
        wait = min(platform.longest_poll_seconds, wait * 1.5)


def delete_endpoint_config(platform: Platform, name: str, seconds: float = DELETION_SECONDS) -> bool:
    """Deletes a configuration; whether it is gone."""
    return _delete(platform, "endpoint_config", "EndpointConfigName", name, seconds)


def delete_model(platform: Platform, name: str, seconds: float = DELETION_SECONDS) -> bool:
    """Deletes a model, not its archive; whether it is gone."""
    return _delete(platform, "model", "ModelName", name, seconds)


def delete_deployment(
    platform: Platform, name: str, say: Callable[[str], None] = _log.warning, looks: int = 1, endpoint: bool = True
) -> list[str]:
    """Deletes endpoint, configuration and model of one name, whichever of them are there; what is left, in words.

    Without `endpoint`, there was never more than a model.
    """
    left = []
    if endpoint and not delete_endpoint(platform, name, looks=looks):
        left.append(f"the endpoint {name}")
    if endpoint and not delete_endpoint_config(platform, name):
        left.append(f"the endpoint configuration {name}")
    if not delete_model(platform, name):
        left.append(f"the model {name}")
    if left:
        say(f"{', '.join(left)} could not be deleted yet; the reaper deletes it, or `stockpicker reap` does now")
    return left


def _create(platform: Platform, noun: str, name_key: str, request: dict[str, Any]) -> None:
    name, words = request[name_key], noun.replace("_config", " configuration")
    described = None
    for look in range(1, _LOOKS + 1):
        with refusals(platform, f"the {words} {name} was to be created"):
            try:
                getattr(platform.client, f"create_{noun}")(**request)
                return
            except ClientError as error:
                if not already_exists(error):
                    raise
            try:
                described = getattr(platform.client, f"describe_{noun}")(**{name_key: name})
                break
            except ClientError as error:
                # What is new, or is just being deleted, is not seen everywhere at once.
                if not is_missing(error) or look == _LOOKS:
                    raise
        polling.pause(platform.poll_seconds)
    assert described is not None
    for key, wanted in request.items():
        if key != "Tags" and not _holds(described.get(key), wanted):
            raise PlatformFailure(
                f"there is another {words} {name}, whose {key} is {described.get(key)!r}; delete it "
                "(`stockpicker reap --older-than 0`), and run it again"
            )


def _holds(there: Any, wanted: Any) -> bool:
    """Whether what is described has everything that is wanted; the service adds members of its own."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_holds(there.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        same = isinstance(there, list) and len(there) == len(wanted)
        return same and all(_holds(*pair) for pair in zip(there, wanted, strict=True))
    return bool(there == wanted) or (there is None and wanted is False)


def _endpoint_status(platform: Platform, name: str) -> tuple[str, str]:
    """Status and reason; empty if it is not seen, which a new endpoint may be for a moment, or cannot be looked at."""
    with refusals(platform, f"the endpoint {name} was looked at"):
        try:
            described: Answer = platform.client.describe_endpoint(EndpointName=name)
        except (ClientError, BotoCoreError) as error:
            if is_missing(error) or is_passing(error):
                return "", ""
            raise
    return described["EndpointStatus"], described.get("FailureReason", "")


def _bodies(rows: pl.DataFrame, most: int) -> Iterator[bytes]:
    """The rows as CSV, each body with its line of names."""
    names, *lines = rows.write_csv().encode().splitlines(keepends=True)
    kept: list[bytes] = []
    size = len(names)
    for line in lines:
        if kept and size + len(line) > most:
            yield b"".join([names, *kept])
            kept, size = [], len(names)
        kept.append(line)
        size += len(line)
    if kept:
        yield b"".join([names, *kept])


def _invoked(platform: Platform, name: str, body: bytes) -> Waiting[bytes]:
    wait = platform.poll_seconds
    for attempt in range(1, _INVOCATIONS + 1):
        with refusals(platform, f"the endpoint {name} was asked"):
            try:
                answer = platform.runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType=CSV, Accept=CSV)
                content: bytes = answer["Body"].read()
                return content
            except (ClientError, BotoCoreError) as error:
                if attempt == _INVOCATIONS or not _worth_asking_again(error):
                    raise
        yield wait
        wait = min(platform.longest_poll_seconds, wait * 2)
    raise AssertionError


def _worth_asking_again(error: Exception) -> bool:
    if isinstance(error, ClientError) and error_code(error) == "ModelError":
        return int(error.response.get("OriginalStatusCode") or 500) >= 500
    return is_passing(error) or error_code(error) == "ModelNotReadyException"


def _delete(platform: Platform, noun: str, name_key: str, name: str, seconds: float) -> bool:
    until, wait = polling.clock() + seconds, platform.poll_seconds
    while not _deleted(platform, noun, name_key, name, once=True):
        if polling.clock() > until:
            return False
        polling.pause(wait)
        wait = min(platform.longest_poll_seconds, wait * 1.5)
    return True


def _deleted(platform: Platform, noun: str, name_key: str, name: str, once: bool = False) -> bool:
    """Asks for a deletion; whether the thing is gone. With `once`, it is as soon as the service has agreed."""
    try:
        getattr(platform.client, f"delete_{noun}")(**{name_key: name})
    except (ClientError, BotoCoreError) as error:
        if is_missing(error) or (is_denied(error) and _is_gone(platform, noun, name_key, name)):
            return True
        _log.info("the %s %s cannot be deleted yet: %s", noun, name, error)
        return False
    return once


def _is_gone(platform: Platform, noun: str, name_key: str, name: str) -> bool:
    """Whether there is no such thing. Rights that rest on a tag are denied for what is not there, which has none."""
    try:
        getattr(platform.client, f"describe_{noun}")(**{name_key: name})
    except (ClientError, BotoCoreError) as error:
        return is_missing(error)
    return False
