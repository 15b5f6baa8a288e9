"""The settings of the deployment `aws`: from the environment, with names that S3 takes, or a sentence."""

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.aws.errors import AwsRefusal
from stockpicker_dagster.storage.aws.settings import aws_settings, on_aws
from stockpicker_dagster_tests.aws.faulty_proxy import Fault, FaultyProxy
from stockpicker_dagster_tests.aws.fixtures import ACCOUNT, REGION


def test_one_setting_asks_for_aws_and_a_wrong_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOCKPICKER_DEPLOYMENT", raising=False)
    assert not on_aws()
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "aws")
    assert on_aws()
    monkeypatch.setenv("STOCKPICKER_DEPLOYMENT", "azure")
    with pytest.raises(InvalidInput, match=r"STOCKPICKER_DEPLOYMENT='azure' is unknown; known: local, aws"):
        on_aws()


def test_names_hold_prefix_account_and_region(aws: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_AWS_PREFIX", "mine")
    settings = aws_settings()
    assert settings.company_data_hub == f"mine-company-data-hub-{ACCOUNT}-{REGION}"
    assert settings.data_for_training == f"mine-data-for-training-{ACCOUNT}-{REGION}"
    monkeypatch.setenv("STOCKPICKER_AWS_ACCOUNT", "999999999999")
    assert aws_settings().account == "999999999999"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("STOCKPICKER_AWS_PREFIX", "My_Prefix", "cannot begin the name of a bucket"),
        ("STOCKPICKER_AWS_PREFIX", "a-prefix-that-is-much-too-long", "2 to 18 lower-case letters"),
        ("AWS_REGION", "mars", "the region 'mars' is none; set AWS_REGION to one such as eu-central-1"),
        ("STOCKPICKER_AWS_ACCOUNT", "12", "is no account; it has twelve digits"),
        ("STOCKPICKER_LAKE_PREFIX", "../x", "is no prefix; use words of letters"),
    ],
)
def test_a_wrong_value_is_named_with_the_way_out(
    variable: str, value: str, said: str, aws: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidInput, match=said):
        aws_settings()


def test_without_a_region_the_variable_is_named(aws: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(InvalidInput, match="no AWS region is named; set AWS_REGION"):
        aws_settings()


def test_credentials_that_are_refused_say_what_to_do(aws: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    aws.fail(Fault("POST /", "answer", 99, 403, "ExpiredToken", "The security token included is expired"))
    with pytest.raises(AwsRefusal, match="credentials have expired: sign in again"):
        aws_settings()
