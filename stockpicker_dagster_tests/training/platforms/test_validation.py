"""What SageMaker would refuse minutes later is refused before it is sent, naming the member and what is allowed."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from stockpicker_dagster.training.platforms.errors import error_code
from stockpicker_dagster.training.platforms.validation import allowed_values, validate_request
from stockpicker_dagster_tests.training.platforms.requests_of_sagemaker import TRAINING, TRANSFORM


def _spoil(whole: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    request = copy.deepcopy(whole)
    change(request)
    return request


def test_good_requests_pass() -> None:
    validate_request("CreateTrainingJob", TRAINING)
    validate_request("CreateTransformJob", TRANSFORM)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.pop("RoleArn"), "Missing required parameter.*RoleArn"),
        (lambda r: r.update(Unknown=1), "Unknown parameter in input: .Unknown."),
        (lambda r: r["HyperParameters"].update(alpha=1.0), "Invalid type for parameter HyperParameters.alpha"),
        (lambda r: r.update(TrainingJobName="my_job"), "TrainingJobName 'my_job' is not allowed; allowed: .a-zA-Z0-9"),
        (lambda r: r.update(TrainingJobName="x" * 64), "TrainingJobName has 64 characters; allowed: at most 63"),
        (lambda r: r.update(TrainingJobName="-x"), "TrainingJobName '-x' is not allowed"),
        (lambda r: r.update(TrainingJobName="x\n"), "is not allowed"),
        (lambda r: r["InputDataConfig"][0].update(ChannelName="../x"), "ChannelName '../x' is not allowed"),
        (lambda r: r["InputDataConfig"][0].update(ChannelName=".."), "ChannelName '..' is no name of a folder"),
        (lambda r: r["InputDataConfig"].append(r["InputDataConfig"][0]), "names a channel twice: train, train"),
        (lambda r: r["ResourceConfig"].update(InstanceType="ml.m5.larg"), "'ml.m5.larg' is not allowed.*ml.m5.large"),
        (lambda r: r["OutputDataConfig"].update(S3OutputPath="file:///x"), "begins with s3 or https://"),
        (lambda r: r["OutputDataConfig"].update(S3OutputPath="s3://bucket/../x"), "without '..'"),
        (lambda r: r["HyperParameters"].update({str(n): "" for n in range(100)}), "102 entries; allowed: at most 100"),
        (lambda r: r["HyperParameters"].update(alpha="x" * 2501), "2501 characters; allowed: at most 2500"),
        (lambda r: r["StoppingCondition"].update(MaxRuntimeInSeconds=0), "valid min value: 1"),
        (lambda r: r["StoppingCondition"].update(MaxWaitTimeInSeconds=60), "60 is less than MaxRuntimeInSeconds 3600"),
        (lambda r: r.update(EnableManagedSpotTraining=True), "needs MaxWaitTimeInSeconds"),
        (lambda r: r.update(Tags=[{"Key": str(n), "Value": ""} for n in range(51)]), "51 entries; allowed: at most 50"),
    ],
)
def test_a_bad_training_job_is_refused_by_the_member_that_is_wrong(
    change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    with pytest.raises(ClientError, match=said) as refused:
        validate_request("CreateTrainingJob", _spoil(TRAINING, change))
    assert error_code(refused.value) == "ValidationException"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.update(MaxPayloadInMB=50, MaxConcurrentTransforms=3), "50 times MaxConcurrentTransforms 3"),
        (lambda r: r.update(MaxPayloadInMB=101), "MaxPayloadInMB 101 times"),
        (lambda r: r.update(BatchStrategy="MultiRecord", TransformInput=r["TransformInput"] | {"SplitType": "None"}),
         "MultiRecord needs a SplitType"),
        (lambda r: r.update(DataProcessing={"JoinSource": "Input"}, TransformOutput={"S3OutputPath": "s3://b/o"}),
         "JoinSource Input needs SplitType Line"),
        (lambda r: r["TransformResources"].update(InstanceType="ml.m5.giant"), "'ml.m5.giant' is not allowed"),
    ],
)  # fmt: skip
def test_a_bad_transform_job_is_refused_by_what_does_not_agree(
    change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    with pytest.raises(ClientError, match=said):
        validate_request("CreateTransformJob", _spoil(TRANSFORM, change))


def test_a_platform_says_which_schemes_its_uris_have() -> None:
    request = _spoil(TRAINING, lambda r: r["OutputDataConfig"].update(S3OutputPath="file:///models"))
    request["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = "file:///data/train.parquet"
    validate_request("CreateTrainingJob", request, schemes=("file",))
    with pytest.raises(ClientError, match="begins with file://"):
        validate_request("CreateTrainingJob", TRAINING, schemes=("file",))


def test_instance_types_differ_per_operation() -> None:
    training, transform = set(allowed_values("TrainingInstanceType")), set(allowed_values("TransformInstanceType"))
    assert "ml.m5.large" in training & transform
    assert training - transform
