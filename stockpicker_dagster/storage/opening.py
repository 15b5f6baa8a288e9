"""Which lake and which database this deployment has, by the environment alone."""

import os
from functools import lru_cache
from pathlib import Path

from stockpicker_dagster.home import home
from stockpicker_dagster.storage.aws.secrets import DATABASE_SECRET, database_url_in
from stockpicker_dagster.storage.aws.settings import AwsSettings, aws_settings, on_aws
from stockpicker_dagster.storage.lake import Lake


def open_lake() -> Lake:
    """The lake that the environment names; nothing is created. Raises `InvalidInput` for settings that are wrong."""
    if not on_aws():
        return Lake(home().lake)
    from stockpicker_dagster.storage.aws.clients import client

    return _on_s3(aws_settings(), client("s3"), home().root / "s3_cache")


def database_url() -> str:
    """The SQLAlchemy URL of the database: of `STOCKPICKER_DATABASE_URL`, of the secret that
    `STOCKPICKER_DATABASE_SECRET` names in AWS Secrets Manager, or of the file in the state folder.
    """
    named = os.environ.get(DATABASE_SECRET)
    if named and not os.environ.get("STOCKPICKER_DATABASE_URL"):
        return database_url_in(named)
    return home().database_url


@lru_cache(maxsize=8)
def _on_s3(settings: AwsSettings, s3: object, cache: Path) -> Lake:
    from stockpicker_dagster.storage.places.s3 import Encryption, S3Place

    encryption = Encryption(settings.kms_key)
    bucket = settings.company_data_hub
    return Lake(S3Place(s3, bucket, settings.lake_prefix, settings.account, cache, encryption))
