"""Images are where AWS's documentation says, and nowhere is guessed."""

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.platforms.built_in_images import _ACCOUNTS, TAGS, image_uri


@pytest.mark.parametrize(
    ("algorithm", "region", "expected"),
    [
        ("xgboost", "us-east-1", "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost:3.2-0"),
        ("linear-learner", "us-west-2", "174872318107.dkr.ecr.us-west-2.amazonaws.com/linear-learner:1"),
        ("linear-learner", "eu-central-1", "664544806723.dkr.ecr.eu-central-1.amazonaws.com/linear-learner:1"),
        ("xgboost", "cn-north-1", "450853457545.dkr.ecr.cn-north-1.amazonaws.com.cn/sagemaker-xgboost:3.2-0"),
    ],
)
def test_addresses_are_those_that_aws_documents(algorithm: str, region: str, expected: str) -> None:
    assert image_uri(algorithm, region) == expected


def test_every_account_is_one_and_every_region_is_boto3s() -> None:
    from boto3.session import Session

    session = Session()
    partitions = session.get_available_partitions()
    regions = {name for each in partitions for name in session.get_available_regions("sagemaker", each)}
    assert set(_ACCOUNTS) <= regions
    assert all(
        len(of) == len(TAGS) and all(len(each) == 12 and each.isdecimal() for each in of) for of in _ACCOUNTS.values()
    )


def test_what_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="no image of xgboost is known in 'mars-1'; known regions: af-south-1, "):
        image_uri("xgboost", "mars-1")
    with pytest.raises(InvalidInput, match="'kmeans' is unknown; known: linear-learner, xgboost"):
        image_uri("kmeans", "us-east-1")
