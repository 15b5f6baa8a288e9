"""What the two roles may do: the caller, which runs Dagster, and the role that SageMaker's jobs take on.

Both reach our two buckets and nothing else of S3. AmazonSageMakerFullAccess would not do: it reaches only buckets with
"sagemaker" in their names. `deploy/cloudformation.yaml` makes the same roles.
"""

from typing import Any

from stockpicker_dagster.storage.aws.buckets import partition
from stockpicker_dagster.storage.aws.settings import AwsSettings

_CREATIONS = [
    "CreateTrainingJob",
    "CreateModel",
    "CreateEndpointConfig",
    "CreateEndpoint",
    "CreateTransformJob",
    "CreateProcessingJob",
    "AddTags",
]
_SAGEMAKER = [
    "StopTrainingJob",
    "DeleteModel",
    "DeleteEndpointConfig",
    "DeleteEndpoint",
    "InvokeEndpoint",
    "StopTransformJob",
    "StopProcessingJob",
    "ListTags",
]
# What is not there carries no tag, and what was just made carries none for a moment: to look must not depend on it.
_SAGEMAKER_LOOKS = [
    "DescribeTrainingJob",
    "DescribeModel",
    "DescribeEndpointConfig",
    "DescribeEndpoint",
    "DescribeTransformJob",
    "DescribeProcessingJob",
]
_SAGEMAKER_LISTS = ["ListTrainingJobs", "ListModels", "ListEndpointConfigs", "ListEndpoints", "ListTransformJobs"]
_LOGS = ["logs:GetLogEvents", "logs:DescribeLogStreams"]
_JOB_LOGS = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
_OBJECTS = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
_BUCKETS = ["s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads"]
_COLD_START = [
    "s3:CreateBucket",
    "s3:GetBucketPublicAccessBlock",
    "s3:PutBucketPublicAccessBlock",
    "s3:GetBucketOwnershipControls",
    "s3:PutBucketOwnershipControls",
    "s3:GetEncryptionConfiguration",
    "s3:PutEncryptionConfiguration",
    "s3:GetBucketVersioning",
    "s3:PutBucketVersioning",
    "s3:GetLifecycleConfiguration",
    "s3:PutLifecycleConfiguration",
    "s3:GetBucketPolicy",
    "s3:PutBucketPolicy",
    "s3:GetBucketTagging",
    "s3:PutBucketTagging",
]


def execution_role_name(settings: AwsSettings) -> str:
    """The role that SageMaker's jobs take on."""
    return f"{settings.prefix}-sagemaker-execution"


def execution_role(settings: AwsSettings) -> str:
    """Its ARN."""
    return f"arn:{partition(settings.region)}:iam::{settings.account}:role/{execution_role_name(settings)}"


def trust_policy() -> dict[str, Any]:
    """Who may take on the execution role: SageMaker."""
    return _document([_allowed("Trust", ["sts:AssumeRole"], principal={"Service": "sagemaker.amazonaws.com"})])


def caller_policy(settings: AwsSettings) -> dict[str, Any]:
    """What the process that runs Dagster and the commands may do."""
    world, where, account = partition(settings.region), settings.region, settings.account
    everything = [f"arn:{world}:sagemaker:{where}:{account}:*"]
    [(key, value)] = settings.tags.items()
    asked_for = {"StringEquals": {f"aws:RequestTag/{key}": value}}
    marked = {"StringEquals": {f"aws:ResourceTag/{key}": value}}
    logs = f"arn:{world}:logs:{where}:{account}:log-group:/aws/sagemaker/*"
    passing = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    secret = f"arn:{world}:secretsmanager:{where}:{account}:secret:{settings.prefix}/*"
    return _document(
        [
            *_storage(settings, settings.buckets),
            _allowed("ColdStart", _COLD_START, _arns(settings, settings.buckets)),
            # Names of jobs begin with the strategy's; what is ours is told by the tag that every creation carries.
            _allowed("NewJobs", [f"sagemaker:{name}" for name in _CREATIONS], everything, asked_for),
            _allowed("Jobs", [f"sagemaker:{name}" for name in _SAGEMAKER], everything, marked),
            _allowed("Looks", [f"sagemaker:{name}" for name in _SAGEMAKER_LOOKS], everything),
            _allowed("Lists", [f"sagemaker:{name}" for name in _SAGEMAKER_LISTS], ["*"]),
            _allowed("PassRole", ["iam:PassRole"], [execution_role(settings)], passing),
            _allowed("JobLogs", _LOGS, [logs]),
            _allowed("Image", ["ecr:DescribeImages"], [_images(settings)]),
            _allowed("Secrets", ["secretsmanager:GetSecretValue"], [secret]),
            _allowed("Quotas", ["servicequotas:ListServiceQuotas"], ["*"]),
            *_key(settings),
        ]
    )


def execution_policy(settings: AwsSettings) -> dict[str, Any]:
    """What a job may do: read and write the bucket for training, write its log, fetch its image."""
    world, where, account = partition(settings.region), settings.region, settings.account
    logs = f"arn:{world}:logs:{where}:{account}:log-group:/aws/sagemaker/*"
    images = [
        _images(settings),
        # Those of the built-in algorithms, which AWS keeps in an account of its own for each region.
        *(f"arn:{world}:ecr:{where}:*:repository/{name}" for name in ("linear-learner", "sagemaker-xgboost")),
    ]
    namespaces = [f"/aws/sagemaker/{kind}Jobs" for kind in ("Training", "Transform", "Processing")]
    metrics = {"StringEquals": {"cloudwatch:namespace": namespaces}}
    pulled = ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"]
    return _document(
        [
            *_storage(settings, (settings.data_for_training,)),
            _allowed("JobLogs", _JOB_LOGS, [logs]),
            _allowed("Metrics", ["cloudwatch:PutMetricData"], ["*"], metrics),
            _allowed("Images", pulled, images),
            _allowed("ImageLogin", ["ecr:GetAuthorizationToken"], ["*"]),
            *_key(settings),
        ]
    )


def _storage(settings: AwsSettings, buckets: tuple[str, ...]) -> list[dict[str, Any]]:
    objects = [f"{arn}/*" for arn in _arns(settings, buckets)]
    return [_allowed("Buckets", _BUCKETS, _arns(settings, buckets)), _allowed("Objects", _OBJECTS, objects)]


def _key(settings: AwsSettings) -> list[dict[str, Any]]:
    if settings.kms_key is None:
        return []
    used = ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey", "kms:DescribeKey", "kms:CreateGrant"]
    if settings.kms_key.startswith("arn:") and ":key/" in settings.kms_key:
        return [_allowed("Key", used, [settings.kms_key])]
    # An alias is no resource of a policy; the condition says which keys are meant.
    keys = f"arn:{partition(settings.region)}:kms:{settings.region}:{settings.account}:key/*"
    named = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": settings.kms_key}}
    return [_allowed("Key", used, [keys], named)]


def _images(settings: AwsSettings) -> str:
    """Our own repositories, which are named with the prefix."""
    return f"arn:{partition(settings.region)}:ecr:{settings.region}:{settings.account}:repository/{settings.prefix}*"


def _arns(settings: AwsSettings, buckets: tuple[str, ...]) -> list[str]:
    return [f"arn:{partition(settings.region)}:s3:::{name}" for name in buckets]


def _allowed(
    name: str,
    actions: list[str],
    resources: list[str] | None = None,
    condition: dict[str, Any] | None = None,
    principal: dict[str, str] | None = None,
) -> dict[str, Any]:
    parts = {"Resource": resources, "Condition": condition, "Principal": principal}
    given = {key: value for key, value in parts.items() if value is not None}
    return {"Sid": name, "Effect": "Allow", "Action": actions, **given}


def _document(statements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": statements}
