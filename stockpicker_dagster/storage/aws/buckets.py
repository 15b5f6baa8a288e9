"""The two buckets: what each has to be like, as steps, and nothing that would take anything away.

Rules and statements of other people in a lifecycle or a policy stay; ours carry names that begin with `stockpicker`.
"""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from stockpicker_dagster.storage.aws.clients import client, endpoint_is_plain_http
from stockpicker_dagster.storage.aws.errors import AwsRefusal, asking, code_of
from stockpicker_dagster.storage.aws.settings import CUSTOM_MODELS, STAGED, AwsSettings
from stockpicker_dagster.storage.aws.steps import Step

NONCURRENT_DAYS = 30
"""How long a version that was replaced or deleted can still be brought back."""

STAGED_DAYS = 30
"""How long what a job is given stays where the work is given up: longer than the 28 days that a job may wait for spot
capacity and train, because one that was interrupted reads it again."""

_PUBLIC_ACCESS = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
_LIFECYCLE = [
    {
        "ID": "stockpicker-abort-uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    },
    {
        "ID": "stockpicker-expire-noncurrent",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": NONCURRENT_DAYS},
    },
]
_STAGED_EXPIRE = {
    "ID": "stockpicker-expire-staged",
    "Status": "Enabled",
    "Filter": {"Prefix": f"{STAGED}/"},
    "Expiration": {"Days": STAGED_DAYS},
}
"""What was brought for jobs that nobody came back to; every version of it goes by the rules above."""
_UNSET = (
    "NoSuchPublicAccessBlockConfiguration",
    "OwnershipControlsNotFoundError",
    "ServerSideEncryptionConfigurationNotFoundError",
    "NoSuchLifecycleConfiguration",
    "NoSuchBucketPolicy",
    "NoSuchTagSet",
)


def bucket_steps(settings: AwsSettings) -> Iterator[Step]:
    """Everything that makes the buckets of a deployment what they have to be."""
    folders = {
        settings.company_data_hub: (f"{settings.lake_prefix}/",),
        # Of what is staged nothing stays, a mark of the folder neither.
        settings.data_for_training: (f"{CUSTOM_MODELS}/", "jobs/"),
    }
    for bucket, names in folders.items():
        yield from _Bucket(settings, bucket).steps(names)


class _Bucket:
    """One bucket; every request names the account that has to own it."""

    def __init__(self, settings: AwsSettings, name: str) -> None:
        self.settings = settings
        self.name = name
        self.s3 = client("s3")
        self.lifecycle = [*_LIFECYCLE, *([_STAGED_EXPIRE] if name == settings.data_for_training else [])]
        self.of = {"Bucket": name, "ExpectedBucketOwner": settings.account}

    def steps(self, folders: tuple[str, ...]) -> Iterator[Step]:
        name = self.name
        yield Step(f"bucket {name} exists", self._exists, self._create)
        yield Step(f"{name}: public access is blocked", lambda: self._public_access() == _PUBLIC_ACCESS, self._block)
        yield Step(f"{name}: the bucket's owner owns every object", self._owned, self._own)
        kind = f"by the KMS key {self.settings.kms_key}" if self.settings.kms_key else "by keys of S3"
        yield Step(f"{name}: objects are encrypted {kind}", self._encrypted, self._encrypt)
        yield Step(f"{name}: versions are kept", self._versioned, self._version)
        yield Step(
            f"{name}: replaced versions go after {NONCURRENT_DAYS} days, broken-off uploads after 7"
            + (f", what is staged after {STAGED_DAYS}" if _STAGED_EXPIRE in self.lifecycle else ""),
            lambda: all(rule in self._plain_rules() for rule in self.lifecycle),
            self._expire,
        )
        if not endpoint_is_plain_http("s3"):
            yield Step(f"{name}: only TLS is answered", lambda: self._tls() in self._statements(), self._ask_for_tls)
        yield Step(f"{name}: is tagged", lambda: self.settings.tags.items() <= self._tags().items(), self._tag)
        for folder in folders:
            yield Step(f"{name}: folder {folder}", partial(self._has, folder), partial(self._make, folder))

    def _asked(self, doing: str, operation: str, default: Any = None, **more: Any) -> Any:
        """An answer of S3; `default` where nothing of the kind was ever set."""
        with asking(f"{self.name}: {doing}"):
            try:
                return getattr(self.s3, operation)(**self.of, **more)
            except self.s3.exceptions.ClientError as error:
                if default is not None and code_of(error) in _UNSET:
                    return default
                raise

    def _exists(self) -> bool:
        try:
            self._asked("the bucket was looked for", "head_bucket")
        except AwsRefusal as refusal:
            if refusal.code in ("404", "NoSuchBucket"):
                return False
            raise
        return True

    def _create(self) -> None:
        where = self.settings.region
        # us-east-1 has to be left out, and every other region has to be named.
        constraint = {} if where == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": where}}
        with asking(f"{self.name}: the bucket was to be created"):
            try:
                self.s3.create_bucket(Bucket=self.name, ObjectOwnership="BucketOwnerEnforced", **constraint)
            except self.s3.exceptions.ClientError as error:
                if code_of(error) != "BucketAlreadyOwnedByYou":
                    raise
        with asking(f"{self.name}: the bucket was waited for"):
            self.s3.get_waiter("bucket_exists").wait(**self.of, WaiterConfig={"Delay": 1, "MaxAttempts": 30})

    def _public_access(self) -> Any:
        answer = self._asked("its public access was looked at", "get_public_access_block", {})
        return answer.get("PublicAccessBlockConfiguration")

    def _block(self) -> None:
        self._asked(
            "public access was to be blocked",
            "put_public_access_block",
            PublicAccessBlockConfiguration=_PUBLIC_ACCESS,
        )

    def _owned(self) -> bool:
        answer = self._asked("its ownership was looked at", "get_bucket_ownership_controls", {})
        rules = answer.get("OwnershipControls", {}).get("Rules", [])
        return [rule["ObjectOwnership"] for rule in rules] == ["BucketOwnerEnforced"]

    def _own(self) -> None:
        self._asked(
            "its ownership was to be set",
            "put_bucket_ownership_controls",
            OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
        )

    def _encrypted(self) -> bool:
        answer = self._asked("its encryption was looked at", "get_bucket_encryption", {})
        rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
        found = [rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in rules]
        if self.settings.kms_key is None:
            # A key that somebody chose is stronger than what we would set.
            return any(each.get("SSEAlgorithm") for each in found)
        return any(each.get("KMSMasterKeyID") == self.settings.kms_key for each in found)

    def _encrypt(self) -> None:
        key = self.settings.kms_key
        chosen = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key} if key else {"SSEAlgorithm": "AES256"}
        rule = {"ApplyServerSideEncryptionByDefault": chosen, "BucketKeyEnabled": bool(key)}
        self._asked(
            "its encryption was to be set",
            "put_bucket_encryption",
            ServerSideEncryptionConfiguration={"Rules": [rule]},
        )

    def _versioned(self) -> bool:
        return bool(self._asked("its versioning was looked at", "get_bucket_versioning").get("Status") == "Enabled")

    def _version(self) -> None:
        self._asked("versions were to be kept", "put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})

    def _rules(self) -> list[dict[str, Any]]:
        answer = self._asked("its lifecycle was looked at", "get_bucket_lifecycle_configuration", {})
        return list(answer.get("Rules", []))

    def _plain_rules(self) -> list[dict[str, Any]]:
        """The rules without what S3 adds to them when it gives them back."""
        known = {name for rule in self.lifecycle for name in rule}
        return [{name: value for name, value in rule.items() if name in known} for rule in self._rules()]

    def _expire(self) -> None:
        ours = {rule["ID"] for rule in self.lifecycle}
        rules = [rule for rule in self._rules() if rule.get("ID") not in ours]
        self._asked(
            "its lifecycle was to be set",
            "put_bucket_lifecycle_configuration",
            LifecycleConfiguration={"Rules": [*rules, *self.lifecycle]},
        )

    def _tls(self) -> dict[str, Any]:
        arn = f"arn:{partition(self.settings.region)}:s3:::{self.name}"
        return {
            "Sid": "stockpickerOnlyTls",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }

    def _statements(self) -> list[dict[str, Any]]:
        answer = self._asked("its policy was looked at", "get_bucket_policy", {})
        found: list[dict[str, Any]] = json.loads(answer["Policy"])["Statement"] if answer else []
        return found

    def _ask_for_tls(self) -> None:
        others = [each for each in self._statements() if each.get("Sid") != self._tls()["Sid"]]
        policy = {"Version": "2012-10-17", "Statement": [*others, self._tls()]}
        self._asked("only TLS was to be answered", "put_bucket_policy", Policy=json.dumps(policy))

    def _tags(self) -> dict[str, str]:
        answer = self._asked("its tags were looked at", "get_bucket_tagging", {})
        return {each["Key"]: each["Value"] for each in answer.get("TagSet", [])}

    def _tag(self) -> None:
        tags = self._tags() | self.settings.tags
        found = [{"Key": key, "Value": value} for key, value in tags.items()]
        self._asked("it was to be tagged", "put_bucket_tagging", Tagging={"TagSet": found})

    def _has(self, key: str) -> bool:
        answer = self._asked(f"{key} was looked for", "list_objects_v2", Prefix=key, MaxKeys=1)
        return bool(answer.get("KeyCount", len(answer.get("Contents", ()))))

    def _make(self, key: str) -> None:
        self._asked(f"{key} was to be made", "put_object", Key=key, Body=b"")


def partition(region: str) -> str:
    """The part of every ARN that says which of AWS's worlds a region is in."""
    return "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
