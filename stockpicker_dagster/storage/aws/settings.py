"""Which account, region and names the deployment `aws` uses, from the environment alone.

Run configuration of Dagster never names any of it: whoever may launch a run could redirect it.
"""

import os
import re
from dataclasses import dataclass
from functools import lru_cache

from stockpicker_dagster.errors import InvalidInput

DEPLOYMENT = "STOCKPICKER_DEPLOYMENT"
PREFIX = "STOCKPICKER_AWS_PREFIX"
ACCOUNT = "STOCKPICKER_AWS_ACCOUNT"
KMS_KEY = "STOCKPICKER_AWS_KMS_KEY"
LAKE_PREFIX = "STOCKPICKER_LAKE_PREFIX"

CUSTOM_MODELS = "custom-models"
"""The prefix inside the bucket for training that holds what belongs to one model: metadata and outputs."""
STAGED = "staged"
"""The prefix inside that bucket for what jobs are given, which goes when they are done, or after a month."""

_PREFIX = re.compile(r"[a-z][a-z0-9-]{0,16}[a-z0-9]")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_LAKE_PREFIX = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")


@dataclass(frozen=True)
class AwsSettings:
    """Names of one deployment; the same in every process that has the same environment."""

    prefix: str
    account: str
    region: str
    lake_prefix: str = "lake"
    kms_key: str | None = None
    """The key of encryption at rest, as an ARN, id or alias; None: keys that S3 keeps itself (SSE-S3)."""

    @property
    def company_data_hub(self) -> str:
        """The bucket of the lake."""
        return f"{self.prefix}-company-data-hub-{self.account}-{self.region}"

    @property
    def data_for_training(self) -> str:
        """The bucket of what training reads and writes; `custom-models/` lies in it."""
        return f"{self.prefix}-data-for-training-{self.account}-{self.region}"

    @property
    def buckets(self) -> tuple[str, str]:
        return self.company_data_hub, self.data_for_training

    @property
    def tags(self) -> dict[str, str]:
        """What marks everything that this deployment creates."""
        return {"stockpicker": self.prefix}


def on_aws() -> bool:
    """Whether the environment asks for AWS. Raises `InvalidInput` for a deployment that does not exist."""
    named = os.environ.get(DEPLOYMENT) or "local"
    if named not in ("local", "aws"):
        raise InvalidInput(f"{DEPLOYMENT}={named!r} is unknown; known: local, aws")
    return named == "aws"


def aws_settings() -> AwsSettings:
    """The settings of the environment. Raises `InvalidInput` naming the variable that is lacking or wrong.

    The account is asked of AWS itself where `STOCKPICKER_AWS_ACCOUNT` does not name it.
    """
    from stockpicker_dagster.storage.aws.clients import region

    prefix, where = os.environ.get(PREFIX) or "stockpicker", region()
    if not _PREFIX.fullmatch(prefix):
        raise InvalidInput(
            f"{PREFIX}={prefix!r} cannot begin the name of a bucket; use 2 to 18 lower-case letters, digits and "
            "hyphens, beginning with a letter"
        )
    if not _REGION.fullmatch(where):
        raise InvalidInput(f"the region {where!r} is none; set AWS_REGION to one such as eu-central-1")
    account = os.environ.get(ACCOUNT) or _own_account(where, os.environ.get("AWS_PROFILE"))
    if not re.fullmatch(r"\d{12}", account):
        raise InvalidInput(f"{ACCOUNT}={account!r} is no account; it has twelve digits")
    lake_prefix = os.environ.get(LAKE_PREFIX) or "lake"
    if not _LAKE_PREFIX.fullmatch(lake_prefix):
        raise InvalidInput(f"{LAKE_PREFIX}={lake_prefix!r} is no prefix; use words of letters, digits, _ and -")
    settings = AwsSettings(prefix, account, where, lake_prefix, os.environ.get(KMS_KEY) or None)
    if longest := [name for name in settings.buckets if len(name) > 63]:
        raise InvalidInput(f"the bucket name {longest[0]} is longer than 63 letters; shorten {PREFIX}")
    return settings


@lru_cache(maxsize=8)
def _own_account(where: str, profile: str | None) -> str:
    from stockpicker_dagster.storage.aws.clients import client
    from stockpicker_dagster.storage.aws.errors import asking

    with asking("AWS was asked whose credentials these are"):
        return str(client("sts").get_caller_identity()["Account"])
