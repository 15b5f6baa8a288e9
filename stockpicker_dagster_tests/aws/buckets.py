"""Buckets for tests, and what is in them."""

from collections.abc import Mapping
from typing import Any

from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster_tests.aws.fixtures import ACCOUNT, REGION


def make_bucket(name: str) -> Any:
    """Creates a bucket and returns S3's client."""
    s3 = client("s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return s3


def fill(bucket: str, contents: Mapping[str, bytes]) -> None:
    """Puts objects straight into the emulator of this process, which takes a hundredth of the time of requests."""
    from moto.backends import get_backend

    backend = get_backend("s3")[ACCOUNT]["aws"]
    for key, content in contents.items():
        backend.put_object(bucket, key, content)


def objects(s3: Any, bucket: str, prefix: str = "", hidden: bool = False) -> dict[str, bytes]:
    """Every object below `prefix`, named relative to it; without what the place keeps for itself unless `hidden`."""
    found: dict[str, bytes] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for each in page.get("Contents", ()):
            name = each["Key"].removeprefix(prefix)
            if hidden or not any(part.startswith(".") for part in name.split("/")):
                found[name] = s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()
    return found
