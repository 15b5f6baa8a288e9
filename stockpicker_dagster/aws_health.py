"""What `stockpicker doctor` looks at in an AWS account: credentials, clock, buckets, rights, quotas.

Each is a line: what, whether it is well, and otherwise what to do. What cannot be seen is said, and never raises.
"""

import os
import uuid
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.storage.aws.buckets import bucket_steps
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.aws.errors import AwsRefusal, asking
from stockpicker_dagster.storage.aws.settings import AwsSettings, aws_settings
from stockpicker_dagster.training.platforms import PLATFORM, default_platform, platform, reaper
from stockpicker_dagster.training.platforms.sagemaker import IMAGE, default_image

Line = tuple[str, bool, str]
_MOST_SKEW_S = 30.0
_QUOTAS = ("ml.m5.xlarge for training job usage", "ml.m5.xlarge for transform job usage")


def account_lines() -> Iterator[Line]:
    """Everything that is looked at, in the order in which it has to be put right."""
    try:
        settings = aws_settings()
        with asking("AWS was asked whose credentials these are"):
            answer = client("sts").get_caller_identity()
    except StockPickerError as error:
        yield "AWS credentials", False, str(error)
        return
    own = answer["Account"] == settings.account
    wrong = f"; they belong to {answer['Account']}, not to the account {settings.account} that is asked for"
    yield "AWS credentials", own, f"{answer['Arn']} in {settings.region}" + ("" if own else wrong)
    yield _clock(answer)
    lacking = yield from _buckets(settings)
    if not lacking:
        yield _looked("rights on the lake", lambda: _write_and_remove(settings))
    yield _looked("rights on SageMaker", _list_jobs)
    yield _quotas()
    yield from _image(settings)
    yield _left_running()


def _clock(answer: dict[str, Any]) -> Line:
    said = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    skew = abs((datetime.now(UTC) - said.astimezone(UTC)).total_seconds())
    fine = skew <= _MOST_SKEW_S
    way_out = "" if fine else "; set it, such as by chrony: AWS refuses requests of another time"
    return "clock", fine, f"{skew:.0f} s beside AWS's{way_out}"


def _buckets(settings: AwsSettings) -> Generator[Line, None, bool]:
    lacking = False
    for step in bucket_steps(settings):
        if lacking and not step.what.endswith("exists"):
            continue
        try:
            there = step.looked()
        except StockPickerError as error:
            yield "bucket", False, str(error)
            lacking = True
            continue
        if not there:
            yield "bucket", False, f"it is not so that {step.what}; stockpicker cold-start"
            lacking = lacking or step.what.endswith("exists")
    if not lacking:
        yield "buckets", True, ", ".join(settings.buckets)
    return lacking


def _looked(what: str, look: Callable[[], str]) -> Line:
    try:
        return what, True, look()
    except StockPickerError as error:
        return what, False, str(error)


def _write_and_remove(settings: AwsSettings) -> str:
    key = f"{settings.lake_prefix}/.doctor/{uuid.uuid4().hex}"
    of = {"Bucket": settings.company_data_hub, "Key": key, "ExpectedBucketOwner": settings.account}
    with asking(f"{key} was written, read and removed to see whether that is allowed"):
        s3 = client("s3")
        s3.put_object(**of, Body=b"")
        s3.get_object(**of)
        s3.delete_object(**of)
    return "an object can be written, read and removed"


def _list_jobs() -> str:
    with asking("SageMaker was asked for its training jobs"):
        client("sagemaker").list_training_jobs(MaxResults=1)
    return "jobs can be listed"


def _quotas() -> Line:
    found: dict[str, float] = {}
    try:
        with asking("Service Quotas were asked for SageMaker's"):
            for page in client("service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker"):
                found |= {each["QuotaName"]: each["Value"] for each in page["Quotas"]}
    except StockPickerError as error:
        return "quotas", True, f"cannot be seen ({error})"
    none = [name for name in _QUOTAS if name in found and found[name] < 1]
    if none:
        return "quotas", False, f"{', '.join(none)}: 0; ask for more in Service Quotas, or name another instance_type"
    return (
        "quotas",
        True,
        ", ".join(f"{name}: {found[name]:.0f}" for name in _QUOTAS if name in found) or "none is listed",
    )


def _image(settings: AwsSettings) -> Iterator[Line]:
    """Whether the image that jobs run in is where they will look for it; one of another registry is not looked for."""
    try:
        if default_platform() == "local":
            return
    except StockPickerError as error:
        yield "image for jobs", False, str(error)
        return
    named = os.environ.get(IMAGE) or default_image(settings)
    registry, _, rest = named.partition("/")
    if registry != default_image(settings).partition("/")[0]:
        yield "image for jobs", True, f"{named}, of another registry, is not looked for"
        return
    repository, _, tag = rest.partition(":")
    try:
        with asking(f"the image {named} was looked for"):
            client("ecr").describe_images(repositoryName=repository, imageIds=[{"imageTag": tag or "latest"}])
    except AwsRefusal as error:
        if error.code in ("RepositoryNotFoundException", "ImageNotFoundException"):
            way_out = f"build and push it (docs/aws.md), or train on this machine with {PLATFORM}=local"
            yield "image for jobs", False, f"{named} is not there; {way_out}"
        else:
            yield "image for jobs", False, str(error)
        return
    yield "image for jobs", True, named


def _left_running() -> Line:
    try:
        found = reaper.left_over(platform("sagemaker"), datetime.now(UTC), reaper.OLD)
    except StockPickerError as error:
        return "left running", False, str(error)
    if found:
        return "left running", False, f"{', '.join(map(str, found))}; stockpicker reap deletes it"
    return "left running", True, "nothing that a scoring made and that bills"
