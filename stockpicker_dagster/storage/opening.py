"""Which lake this deployment has: a folder of the state folder, or S3."""

from functools import lru_cache
from pathlib import Path

from stockpicker_dagster.home import home
from stockpicker_dagster.storage.aws.settings import AwsSettings, aws_settings, on_aws
from stockpicker_dagster.storage.lake import Lake


def open_lake() -> Lake:
    """The lake that the environment names; nothing is created. Raises `InvalidInput` for settings that are wrong."""
    if not on_aws():
        return Lake(home().lake)
    from stockpicker_dagster.storage.aws.clients import client

    return _on_s3(aws_settings(), client("s3"), home().root / "s3_cache")


@lru_cache(maxsize=8)
def _on_s3(settings: AwsSettings, s3: object, cache: Path) -> Lake:
    from stockpicker_dagster.storage.places.s3 import Encryption, S3Place

    encryption = Encryption(settings.kms_key)
    bucket = settings.company_data_hub
    return Lake(S3Place(s3, bucket, settings.lake_prefix, settings.account, cache, encryption))
