"""Cold start: an empty account becomes one where strategies run; doing it again changes nothing and loses nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import inspect

from stockpicker_dagster.cli import main
from stockpicker_dagster.cold_start import cold_start
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.aws.errors import AwsRefusal
from stockpicker_dagster.storage.aws.settings import aws_settings
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster_tests.aws.buckets import objects
from stockpicker_dagster_tests.aws.faulty_proxy import Fault, FaultyProxy
from stockpicker_dagster_tests.aws.fixtures import ACCOUNT


@pytest.fixture
def account(aws: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultyProxy:
    """An empty account, and the deployment on it."""
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "aws")
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    return aws


def everything(name: str) -> dict[str, Any]:
    """What a bucket is like, as S3 says."""
    s3 = client("s3")
    return {
        "block": s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
        "owner": s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]["Rules"],
        "encryption": s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"],
        "versioning": s3.get_bucket_versioning(Bucket=name)["Status"],
        "lifecycle": s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"],
        "tags": s3.get_bucket_tagging(Bucket=name)["TagSet"],
        "objects": objects(s3, name, hidden=True),
    }


def test_a_plan_names_everything_and_touches_nothing(account: FaultyProxy, tmp_path: Path) -> None:
    planned = [str(outcome) for outcome in cold_start(Deployment(), plan=True, own_key=True)]
    assert {line[:14] for line in planned} == {"would be done "}
    assert any("alias/stockpicker" in line for line in planned)
    assert any("the database has the newest schema" in line for line in planned)
    assert client("s3").list_buckets()["Buckets"] == []
    assert not (tmp_path / "home" / "stockpicker.sqlite").exists()
    changing = account.requests(r"^(PUT|DELETE)|Create|Enable|Schedule")
    assert list(changing) == []


@pytest.mark.parametrize("region", ["eu-central-1", "us-east-1"])
def test_an_empty_account_is_made_ready_once_in_any_region(
    account: FaultyProxy, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", region)
    first = list(cold_start(Deployment()))
    # S3 itself encrypts new buckets by now, so that not every step has something to do.
    assert first[0].done
    assert first[-1].done
    settings = aws_settings()
    assert settings.buckets == (
        f"stockpicker-company-data-hub-{ACCOUNT}-{region}",
        f"stockpicker-data-for-training-{ACCOUNT}-{region}",
    )
    found = {name: everything(name) for name in settings.buckets}
    hub, training = found.values()
    for bucket in (hub, training):
        assert set(bucket["block"].values()) == {True}
        assert bucket["owner"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
        assert bucket["encryption"][0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
        assert bucket["versioning"] == "Enabled"
        assert {"Key": "stockpicker", "Value": "stockpicker"} in bucket["tags"]
    ours = {"stockpicker-abort-uploads", "stockpicker-expire-noncurrent"}
    assert {rule["ID"] for rule in hub["lifecycle"]} == ours
    # What jobs were given goes by itself, and nothing else of either bucket does.
    assert {rule["ID"] for rule in training["lifecycle"]} == ours | {"stockpicker-expire-staged"}
    expiring = [rule for bucket in (hub, training) for rule in bucket["lifecycle"] if "Expiration" in rule]
    assert [(rule["Filter"]["Prefix"], rule["Expiration"]["Days"]) for rule in expiring] == [("staged/", 30)]
    assert "custom-models/" in training["objects"]
    assert "lake/" in hub["objects"]
    assert {"sp100", "sp500"} == {name.split("/")[2] for name in hub["objects"] if name.startswith("lake/universes/")}
    assert {"accounts", "proposals"} <= set(inspect(Deployment().database).get_table_names())

    account.forget()
    again = list(cold_start(Deployment()))
    assert all(outcome.was_there for outcome in again)
    assert list(account.requests("^(PUT|DELETE)")) == []
    assert {name: everything(name) for name in settings.buckets} == found


def test_a_start_that_was_cut_off_goes_on(account: FaultyProxy) -> None:
    account.fail(Fault(r"PUT .*\?versioning", "answer", 99, 403, "AccessDenied"))
    with pytest.raises(AwsRefusal, match=r"versions were to be kept.*attach the policies"):
        list(cold_start(Deployment()))
    account.forget()
    outcomes = list(cold_start(Deployment()))
    assert outcomes[0].was_there
    assert outcomes[-1].done


def test_what_other_people_set_stays(account: FaultyProxy) -> None:
    s3, name = client("s3"), aws_settings().company_data_hub
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    theirs = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 9}}
    s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [theirs]})
    s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": [{"Key": "cost", "Value": "centre"}]})
    key = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/theirs"}
    rules = [{"ApplyServerSideEncryptionByDefault": key}]
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": rules})
    s3.put_object(Bucket=name, Key="lake/old.txt", Body=b"kept")
    list(cold_start(Deployment()))
    found = everything(name)
    assert found["lifecycle"][0]["ID"] == "theirs"
    assert len(found["lifecycle"]) == 3
    assert {"Key": "cost", "Value": "centre"} in found["tags"]
    assert found["encryption"][0]["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == "alias/theirs"
    assert found["objects"]["lake/old.txt"] == b"kept"


def test_a_key_of_ones_own_is_made_once_and_used(account: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    list(cold_start(Deployment(), own_key=True))
    monkeypatch.setenv("STOCKPICKER_AWS_KMS_KEY", "alias/stockpicker")
    assert all(outcome.was_there for outcome in cold_start(Deployment(), own_key=True))
    kms = client("kms")
    assert len(kms.list_keys()["Keys"]) == 1
    assert kms.get_key_rotation_status(KeyId=kms.list_keys()["Keys"][0]["KeyId"])["KeyRotationEnabled"]
    for name in aws_settings().buckets:
        rule = everything(name)["encryption"][0]
        assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == "alias/stockpicker"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("HEAD /stockpicker-company", "answer", 99, 403, "AccessDenied"), "a bucket of another account"),
        (Fault("PUT /stockpicker-company", "answer", 99, 409, "BucketAlreadyExists"), "STOCKPICKER_AWS_PREFIX"),
    ],
)
def test_a_bucket_of_somebody_else_is_refused_with_the_way_out(account: FaultyProxy, fault: Fault, said: str) -> None:
    account.fail(fault)
    with pytest.raises(AwsRefusal, match=said):
        list(cold_start(Deployment()))


def test_tls_alone_is_asked_for_where_there_is_tls(account: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    from stockpicker_dagster.storage.aws import buckets

    list(cold_start(Deployment()))
    monkeypatch.setattr(buckets, "endpoint_is_plain_http", lambda _: False)
    # The emulator refuses every request once the policy is there, so that the steps are taken one by one.
    steps = [step for step in buckets.bucket_steps(aws_settings()) if step.what.endswith("only TLS is answered")]
    assert len(steps) == 2
    for step in steps:
        assert not step.looked()
        step.do()
        assert step.looked()
    name = aws_settings().company_data_hub
    [statement] = json.loads(client("s3").get_bucket_policy(Bucket=name)["Policy"])["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]


def test_on_this_machine_alone_it_makes_database_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    assert [outcome.done for outcome in cold_start(Deployment())] == [True] * 4
    assert [outcome.was_there for outcome in cold_start(Deployment())] == [True] * 4
    with pytest.raises(InvalidInput, match="a KMS key belongs to an AWS account"):
        list(cold_start(Deployment(), own_key=True))


def test_the_command_plans_does_and_prints_policies(account: FaultyProxy) -> None:
    planned = CliRunner().invoke(main, ["cold-start", "--plan"])
    assert planned.exit_code == 0, planned.output
    assert f"would be done bucket stockpicker-company-data-hub-{ACCOUNT}-eu-central-1 exists" in planned.output
    done = CliRunner().invoke(main, ["cold-start"])
    assert done.exit_code == 0, done.output
    assert "done          the database has the newest schema" in done.output
    printed = CliRunner().invoke(main, ["cold-start", "--policies"])
    policies = json.loads(printed.stdout)
    assert set(policies) == {"caller", "role stockpicker-sagemaker-execution", "who may take the role on"}


def test_a_database_on_a_server_is_created_and_migrated(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres_url.rsplit("/", 1)[0] + '/cold "start"'
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    monkeypatch.setenv("STOCKPICKER_DATABASE_URL", url)
    planned = [outcome.was_there for outcome in cold_start(Deployment(), plan=True)]
    assert planned[:2] == [False, False]
    assert [outcome.done for outcome in cold_start(Deployment())][:2] == [True, True]
    assert [outcome.was_there for outcome in cold_start(Deployment())][:2] == [True, True]
    assert {"accounts", "proposals"} <= set(inspect(Deployment().database).get_table_names())
