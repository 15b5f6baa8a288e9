"""What the doctor sees in an account: each thing that is wrong is a line with what to do, and nothing raises."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from stockpicker_dagster.aws_health import account_lines
from stockpicker_dagster.cold_start import cold_start
from stockpicker_dagster.health import findings
from stockpicker_dagster.home import prepare_home
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.aws.settings import aws_settings
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.training.platforms import platform, reaper
from stockpicker_dagster.training.platforms.scoring_requests import PURPOSE
from stockpicker_dagster_tests.aws.buckets import objects
from stockpicker_dagster_tests.aws.faulty_proxy import Fault, FaultyProxy


@pytest.fixture
def account(aws: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    """An account with nothing in it but the image that jobs run in."""
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "aws")
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    client("ecr").create_repository(repositoryName="stockpicker")
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": {}, "layers": []})
    client("ecr").put_image(repositoryName="stockpicker", imageTag="latest", imageManifest=manifest)
    return aws


def unwell() -> dict[str, str]:
    return {what: sentence for what, healthy, sentence in account_lines() if not healthy}


def test_an_account_after_cold_start_is_well_and_left_as_it_was(account: FaultyProxy) -> None:
    list(cold_start(Deployment()))
    before = objects(client("s3"), aws_settings().company_data_hub, hidden=True)
    assert unwell() == {}
    assert {"AWS credentials", "clock", "buckets", "rights on the lake"} <= {what for what, _, _ in account_lines()}
    assert objects(client("s3"), aws_settings().company_data_hub, hidden=True) == before


def test_an_empty_account_is_told_to_make_buckets(account: FaultyProxy) -> None:
    found = unwell()
    assert set(found) == {"bucket"}
    assert found["bucket"].endswith("exists; stockpicker cold-start")


@pytest.mark.parametrize(
    ("fault", "what", "said"),
    [
        (Fault("POST / *$", "answer", 99, 403, "ExpiredToken"), "AWS credentials", "sign in again"),
        (Fault("PUT .*doctor", "answer", 99, 403, "AccessDenied"), "rights on the lake", "attach the policies"),
        (Fault("ListTrainingJobs", "answer", 99, 400, "AccessDeniedException"), "rights on SageMaker", "attach"),
    ],
)
def test_what_is_refused_is_a_line_with_the_way_out(account: FaultyProxy, fault: Fault, what: str, said: str) -> None:
    list(cold_start(Deployment()))
    account.fail(fault)
    found = unwell()
    assert set(found) == {what}
    assert said in found[what]


def test_a_setting_that_was_taken_back_is_named(account: FaultyProxy) -> None:
    list(cold_start(Deployment()))
    name = aws_settings().data_for_training
    client("s3").put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    assert unwell() == {"bucket": f"it is not so that {name}: versions are kept; stockpicker cold-start"}


def test_credentials_of_another_account_are_named(account: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_AWS_ACCOUNT", "999999999999")
    assert "not to the account 999999999999" in unwell()["AWS credentials"]


def test_the_doctor_shows_the_account_first_and_stops_where_nothing_can_be_reached(account: FaultyProxy) -> None:
    found = [(each.what, each.healthy) for each in findings(prepare_home(announce=False))]
    assert ("bucket", False) in found
    assert "database" not in dict(found)
    list(cold_start(Deployment()))
    found = [(each.what, each.healthy) for each in findings(prepare_home(announce=False))]
    assert ("database", True) in found
    assert dict(found)["versions"]


def test_an_image_that_is_lacking_is_named_before_the_first_job_fails_for_it(
    account: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(cold_start(Deployment()))
    for named in ("", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/stockpicker:other"):
        monkeypatch.setenv("STOCKPICKER_TRAINING_IMAGE", named)
        if not named:
            client("ecr").batch_delete_image(repositoryName="stockpicker", imageIds=[{"imageTag": "latest"}])
        assert "is not there; build and push it" in unwell()["image for jobs"]
    client("ecr").delete_repository(repositoryName="stockpicker", force=True)
    assert "is not there; build and push it" in unwell()["image for jobs"]
    account.fail(Fault("DescribeImages", "answer", 99, 400, "AccessDeniedException"))
    assert "attach the policies" in unwell()["image for jobs"]
    # What is not needed, or is somebody else's to keep, is not looked for.
    monkeypatch.setenv("STOCKPICKER_TRAINING_IMAGE", "registry.example.com/team/stockpicker:2")
    assert unwell() == {}
    monkeypatch.delenv("STOCKPICKER_TRAINING_IMAGE")
    monkeypatch.setenv("STOCKPICKER_TRAINING_PLATFORM", "local")
    assert unwell() == {}


def test_the_doctor_says_where_each_strategy_trains(account: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    list(cold_start(Deployment()))
    place = prepare_home(announce=False)
    said = {each.what: (each.healthy, each.sentence) for each in findings(place)}
    assert said["quickstart: models"] == (True, "trained by SageMaker; days are scored by transform")
    monkeypatch.setenv("STOCKPICKER_TRAINING_PLATFORM", "cluster")
    said = {each.what: (each.healthy, each.sentence) for each in findings(place)}
    assert said["quickstart: models"] == (
        False,
        "STOCKPICKER_TRAINING_PLATFORM='cluster' is unknown; known: local, sagemaker",
    )


def test_what_a_scoring_left_running_is_named(account: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    list(cold_start(Deployment()))
    place = platform("sagemaker")
    tags = [{"Key": key, "Value": value} for key, value in {**place.marks, **PURPOSE}.items()]
    container = {"Image": place.image, "ModelDataUrl": f"{place.output}/model.tar.gz"}
    place.client.create_model(ModelName="left", PrimaryContainer=container, ExecutionRoleArn=place.role, Tags=tags)
    assert unwell() == {}  # it is young, and may be in use
    monkeypatch.setattr(reaper, "OLD", timedelta(hours=-1))
    assert unwell()["left running"].startswith("model left, made 2")
