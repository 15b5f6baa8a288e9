"""The local platform speaks as SageMaker does: dictionaries, errors, lists, tags, models, endpoints and transforms."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from stockpicker_dagster.training.platforms.errors import already_exists, error_code, is_missing
from stockpicker_dagster.training.platforms.local import LocalPlatform
from stockpicker_dagster.training.platforms.local.locations import path_of
from stockpicker_dagster_tests.training.platforms.local.conftest import Ask, ended, wait_for


def _refused(call: Any, **request: Any) -> ClientError:
    with pytest.raises(ClientError) as refused:
        call(**request)
    return refused.value


@pytest.fixture
def model(here: LocalPlatform, ask: Ask) -> str:
    """A trained model that the platform knows."""
    here.client.create_training_job(**ask("trained"))
    artifact = ended(here, "trained")["ModelArtifacts"]["S3ModelArtifacts"]
    here.client.create_model(
        ModelName="model", PrimaryContainer={"Image": here.image, "ModelDataUrl": artifact}, ExecutionRoleArn=here.role
    )
    return "model"


def test_an_endpoint_lives_from_creating_to_gone(here: LocalPlatform, model: str) -> None:
    client = here.client
    variant = {"VariantName": "all", "ModelName": model, **here.hosting_resources}
    config = client.create_endpoint_config(EndpointConfigName="config", ProductionVariants=[variant])
    assert config == {"EndpointConfigArn": "arn:aws:sagemaker:local:000000000000:endpoint-config/config"}
    tags = [{"Key": "stockpicker:strategy", "Value": "mine"}]
    arn = client.create_endpoint(EndpointName="served", EndpointConfigName="config", Tags=tags)["EndpointArn"]
    assert client.describe_endpoint(EndpointName="served")["EndpointStatus"] == "Creating"
    refused = _refused(here.runtime.invoke_endpoint, EndpointName="served", Body=b"1,2", ContentType="text/csv")
    assert error_code(refused) == "ModelNotReadyException"
    wait_for(lambda: client.describe_endpoint(EndpointName="served")["EndpointStatus"] == "InService")
    answer = here.runtime.invoke_endpoint(EndpointName="served", Body=b"1,2\n3,4\n", ContentType="text/csv")
    assert len(answer["Body"].read().split()) == 2
    assert (answer["InvokedProductionVariant"], len(answer["CustomAttributes"])) == ("all", 16)
    wrong = _refused(here.runtime.invoke_endpoint, EndpointName="served", Body=b"1,x", ContentType="text/csv")
    assert (error_code(wrong), wrong.response["OriginalStatusCode"]) == ("ModelError", 400)  # type: ignore[typeddict-item]
    assert "row 1: the feature two is 'x'" in str(wrong)
    big = _refused(here.runtime.invoke_endpoint, EndpointName="served", Body=b"1" * 6_291_457, ContentType="text/csv")
    assert error_code(big) == "ValidationError"
    again = _refused(client.create_endpoint, EndpointName="served", EndpointConfigName="config")
    assert (error_code(again), already_exists(again)) == ("ValidationException", True)
    assert client.list_tags(ResourceArn=arn)["Tags"] == tags
    client.delete_endpoint(EndpointName="served")
    wait_for(lambda: not client.list_endpoints()["Endpoints"])
    assert is_missing(_refused(client.describe_endpoint, EndpointName="served"))
    assert is_missing(_refused(client.delete_endpoint, EndpointName="served"))
    client.delete_endpoint_config(EndpointConfigName="config")
    client.delete_model(ModelName=model)
    assert client.list_models()["Models"] == []
    assert error_code(_refused(here.runtime.invoke_endpoint, EndpointName="served", Body=b"")) == "ValidationError"


def test_an_endpoint_whose_model_cannot_be_loaded_fails_and_says_why(here: LocalPlatform, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    container = {"Image": here.image, "ModelDataUrl": here.stage(tmp_path / "empty", "work")}
    here.client.create_model(ModelName="none", PrimaryContainer=container)
    variant = {"VariantName": "all", "ModelName": "none", **here.hosting_resources}
    here.client.create_endpoint_config(EndpointConfigName="config", ProductionVariants=[variant])
    here.client.create_endpoint(EndpointName="served", EndpointConfigName="config")
    wait_for(lambda: here.client.describe_endpoint(EndpointName="served")["EndpointStatus"] == "Failed")
    assert "model.json cannot be read" in here.client.describe_endpoint(EndpointName="served")["FailureReason"]
    here.client.delete_endpoint(EndpointName="served")
    assert here.client.list_endpoints()["Endpoints"] == []


def _transform(here: LocalPlatform, source: Path, **changes: Any) -> dict[str, Any]:
    prefix = {"S3DataType": "S3Prefix", "S3Uri": here.stage(source, "work")}
    request: dict[str, Any] = {
        "TransformJobName": "scores",
        "ModelName": "model",
        "TransformInput": {"DataSource": {"S3DataSource": prefix}, "ContentType": "text/csv", "SplitType": "Line"},
        "TransformOutput": {"S3OutputPath": f"{here.output}/scores", "AssembleWith": "Line"},
        "TransformResources": here.transform_resources,
        **changes,
    }
    here.client.create_transform_job(**request)
    name = request["TransformJobName"]
    wait_for(lambda: here.client.describe_transform_job(TransformJobName=name)["TransformJobStatus"] != "InProgress")
    return here.client.describe_transform_job(TransformJobName=name)


def test_a_transform_scores_every_line_in_pieces_and_joins_them_in_order(
    here: LocalPlatform, model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    # 1.3 MB in pieces of at most 1 MB; a file of one line beside it.
    lines = [f"id{number},{number / 1000},{-number / 1000},{'x' * 30}" for number in range(25_000)]
    (folder / "many.csv").write_text("\n".join(lines) + "\n")
    (folder / "one.csv").write_text("lone,1,2,y")
    processing = {"InputFilter": "$[1:3]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    job = _transform(here, folder, DataProcessing=processing, MaxPayloadInMB=1, BatchStrategy="MultiRecord")
    assert job["TransformJobStatus"] == "Completed"
    many, one = (here.fetch(f"{here.output}/scores/{name}.csv.out").decode() for name in ("many", "one"))
    rows = [line.split(",") for line in many.splitlines()]
    assert [row[0] for row in rows] == [f"id{number}" for number in range(25_000)]
    # Linear in the row's number, so that a score in another's place is seen.
    scores = [float(row[1]) for row in rows]
    assert (
        max(
            abs(later - 2 * score + earlier)
            for earlier, score, later in zip(scores, scores[1:], scores[2:], strict=False)
        )
        < 1e-6
    )
    assert one.startswith("lone,")
    assert here.listed(f"{here.output}/scores") == [f"{here.output}/scores/{name}.csv.out" for name in ("many", "one")]
    (folder / "bad.csv").write_text("id,1,what,z\n")
    failed = _transform(here, folder, TransformJobName="bad", DataProcessing=processing)
    assert failed["TransformJobStatus"] == "Failed"
    assert "bad.csv: the container answered 400: row 1: the feature two is 'what'" in failed["FailureReason"]
    jobs = here.client.list_transform_jobs(StatusEquals="Failed")["TransformJobSummaries"]
    assert [each["TransformJobName"] for each in jobs] == ["bad"]


def test_what_is_not_there_and_what_is_taken(here: LocalPlatform, ask: Ask, tmp_path: Path) -> None:
    client = here.client
    for call in (client.describe_training_job, client.stop_training_job):
        assert is_missing(_refused(call, TrainingJobName="none"))
    assert is_missing(_refused(client.describe_training_job, TrainingJobName="../platform"))
    assert is_missing(_refused(client.describe_transform_job, TransformJobName="none"))
    assert is_missing(_refused(client.delete_model, ModelName="none"))
    assert is_missing(_refused(client.list_tags, ResourceArn="arn:aws:sagemaker:local:000000000000:model/none"))
    container = {"Image": here.image, "ModelDataUrl": here.stage(tmp_path, "work")}
    client.create_model(ModelName="model", PrimaryContainer=container)
    taken = _refused(client.create_model, ModelName="model", PrimaryContainer=container)
    assert (error_code(taken), already_exists(taken)) == ("ValidationException", True)
    other = _refused(client.create_model, ModelName="other", PrimaryContainer=container | {"Image": "theirs"})
    assert "the image 'theirs' is not here; this platform runs 'stockpicker-dagster:local' only" in str(other)
    away = {**ask("job")["OutputDataConfig"], "S3OutputPath": "s3://bucket/out"}
    assert "begins with file://" in str(_refused(client.create_training_job, **ask("job", OutputDataConfig=away)))
    assert client.list_training_jobs()["TrainingJobSummaries"] == []


def test_lists_are_narrowed_sorted_and_cut_into_pages(here: LocalPlatform, tmp_path: Path) -> None:
    container = {"Image": here.image, "ModelDataUrl": here.stage(tmp_path, "work")}
    for name in ("b", "a", "c"):
        here.client.create_model(ModelName=name, PrimaryContainer=container, Tags=[{"Key": "k", "Value": name}])
    models = here.client.list_models
    assert [each["ModelName"] for each in models()["Models"]] == ["c", "a", "b"]
    first = models(SortBy="Name", SortOrder="Ascending", MaxResults=2)
    assert [each["ModelName"] for each in first["Models"]] == ["a", "b"]
    rest = models(SortBy="Name", SortOrder="Ascending", MaxResults=2, NextToken=first["NextToken"])
    assert ([each["ModelName"] for each in rest["Models"]], "NextToken" in rest) == (["c"], False)
    assert [each["ModelName"] for each in models(NameContains="B")["Models"]] == ["b"]
    assert models(CreationTimeBefore=first["Models"][1]["CreationTime"])["Models"][0]["ModelName"] == "b"
    arn = first["Models"][0]["ModelArn"]
    assert here.client.add_tags(ResourceArn=arn, Tags=[{"Key": "k", "Value": "z"}])["Tags"] == [
        {"Key": "k", "Value": "z"}
    ]
    assert here.client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "k", "Value": "z"}]


def test_jobs_that_ended_long_ago_are_forgotten_with_their_models(here: LocalPlatform, ask: Ask) -> None:
    here.client.create_training_job(**ask("old"))
    old = ended(here, "old")["ModelArtifacts"]["S3ModelArtifacts"]
    wait_for(lambda: not here.client.training_record("old").supervised)  # type: ignore[union-attr]
    long_ago = time.time() - 31 * 86_400
    os.utime(here.root / "training-jobs" / "old", (long_ago, long_ago))
    here.client.create_training_job(**ask("new"))
    ended(here, "new")
    assert here.client.training_record("old") is None
    assert not path_of(old).exists()
    assert [each["TrainingJobName"] for each in here.client.list_training_jobs()["TrainingJobSummaries"]] == ["new"]
