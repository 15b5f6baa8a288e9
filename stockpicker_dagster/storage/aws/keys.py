"""The KMS key, where one of the deployment's own is asked for: made once, found again by its alias."""

from collections.abc import Iterator

from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.aws.errors import asking, code_of
from stockpicker_dagster.storage.aws.settings import AwsSettings
from stockpicker_dagster.storage.aws.steps import Step


def key_alias(settings: AwsSettings) -> str:
    """The alias of the deployment's own key."""
    return f"alias/{settings.prefix}"


def key_steps(settings: AwsSettings) -> Iterator[Step]:
    """The deployment's own key, which turns over once a year."""
    alias = key_alias(settings)
    yield Step(f"KMS key {alias} exists", lambda: _found(alias) is not None, lambda: _create(settings, alias))
    yield Step(f"KMS key {alias} is renewed yearly", lambda: _rotates(alias), lambda: _rotate(alias))


def _found(alias: str) -> str | None:
    kms = client("kms")
    with asking(f"the KMS key {alias} was looked for"):
        try:
            return str(kms.describe_key(KeyId=alias)["KeyMetadata"]["KeyId"])
        except kms.exceptions.ClientError as error:
            if code_of(error) == "NotFoundException":
                return None
            raise


def _create(settings: AwsSettings, alias: str) -> None:
    kms = client("kms")
    with asking(f"the KMS key {alias} was to be created"):
        tags = [{"TagKey": key, "TagValue": value} for key, value in settings.tags.items()]
        key = kms.create_key(Description=f"What {settings.prefix} stores", Tags=tags)["KeyMetadata"]["KeyId"]
        kms.create_alias(AliasName=alias, TargetKeyId=key)


def _rotates(alias: str) -> bool:
    key = _found(alias)
    if key is None:
        return False
    with asking(f"the KMS key {alias} was looked at"):
        return bool(client("kms").get_key_rotation_status(KeyId=key)["KeyRotationEnabled"])


def _rotate(alias: str) -> None:
    with asking(f"the KMS key {alias} was to be renewed yearly"):
        client("kms").enable_key_rotation(KeyId=_found(alias))
