"""The rights of the two roles: enough for what is asked, nothing beyond our own, and the same in the template."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stockpicker_dagster.storage.aws.policies import caller_policy, execution_policy, execution_role, trust_policy
from stockpicker_dagster.storage.aws.settings import AwsSettings

TEMPLATE = Path(__file__).resolve().parents[3] / "deploy" / "cloudformation.yaml"
SETTINGS = AwsSettings("stockpicker", "123456789012", "eu-central-1")
_VALUES = {
    "AWS::Partition": "aws",
    "AWS::Region": SETTINGS.region,
    "AWS::AccountId": SETTINGS.account,
    "Prefix": SETTINGS.prefix,
}


class _Template(yaml.SafeLoader):
    """Reads the short forms of CloudFormation's functions."""


def _substituted(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return re.sub(r"\$\{([^}]+)\}", lambda name: _VALUES[name[1]], str(loader.construct_scalar(node)))


_Template.add_constructor("!Sub", _substituted)
for _tag in ("!Ref", "!GetAtt"):
    _Template.add_constructor(_tag, lambda loader, node: f"<{loader.construct_scalar(node)}>")
for _tag in ("!If", "!Not", "!Equals"):
    _Template.add_constructor(_tag, lambda loader, node: loader.construct_sequence(node, deep=True))


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Template)["Resources"]
    return found


def test_the_template_is_valid() -> None:
    linter = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([linter, TEMPLATE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_template_gives_the_rights_that_the_command_prints(resources: dict[str, Any]) -> None:
    role = resources["ExecutionRole"]["Properties"]
    assert role["RoleName"] == execution_role(SETTINGS).rsplit("/", 1)[1]
    assert role["AssumeRolePolicyDocument"] == trust_policy()
    assert role["Policies"][0]["PolicyDocument"] == execution_policy(SETTINGS)
    assert resources["CallerPolicy"]["Properties"]["PolicyDocument"] == caller_policy(SETTINGS)


def test_every_right_is_for_our_own_things_or_has_no_narrower_form() -> None:
    everywhere = {
        statement["Sid"]
        for policy in (caller_policy(SETTINGS), execution_policy(SETTINGS))
        for statement in policy["Statement"]
        if "*" in statement["Resource"]
    }
    assert everywhere == {"Lists", "Quotas", "Metrics", "ImageLogin"}
    text = str(caller_policy(SETTINGS)) + str(execution_policy(SETTINGS))
    assert "s3:*" not in text
    assert "sagemaker:*" not in text
    assert "DeleteBucket" not in text
    [passing] = [each for each in caller_policy(SETTINGS)["Statement"] if each["Sid"] == "PassRole"]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
    assert passing["Resource"] == [execution_role(SETTINGS)]


def test_the_role_of_jobs_reaches_the_bucket_for_training_alone() -> None:
    assert SETTINGS.company_data_hub not in str(execution_policy(SETTINGS))


@pytest.mark.parametrize(
    ("key", "resource"),
    [("arn:aws:kms:eu-central-1:123456789012:key/abc", "key/abc"), ("alias/mine", "key/*")],
)
def test_a_key_is_named_as_narrowly_as_a_policy_can(key: str, resource: str) -> None:
    settings = AwsSettings("stockpicker", "123456789012", "eu-central-1", kms_key=key)
    for policy in (caller_policy(settings), execution_policy(settings)):
        [statement] = [each for each in policy["Statement"] if each["Sid"] == "Key"]
        assert statement["Resource"][0].endswith(resource)
        assert ("Condition" in statement) == key.startswith("alias/")


@pytest.mark.parametrize(("region", "world"), [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")])
def test_other_worlds_of_aws_have_their_own_arns(region: str, world: str) -> None:
    settings = AwsSettings("stockpicker", "123456789012", region)
    assert "arn:aws:" not in str(caller_policy(settings))
    assert f"arn:{world}:s3:::" in str(execution_policy(settings))
