"""Buckets for tests, and what is in them."""

from typing import Any

from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster_tests.aws.fixtures import REGION


def make_bucket(name: str) -> Any:
    """Creates a bucket and returns S3's client."""
    s3 = client("s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return s3


def objects(s3: Any, bucket: str, prefix: str = "", hidden: bool = False) -> dict[str, bytes]:
    """Every object below `prefix`, named relative to it; without what the place keeps for itself unless `hidden`."""
    found: dict[str, bytes] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for each in page.get("Contents", ()):
            name = each["Key"].removeprefix(prefix)
            if hidden or not any(part.startswith(".") for part in name.split("/")):
                found[name] = s3.get_object(Bucket=bucket, Key=each["Key"])["Body"].read()
    return found
