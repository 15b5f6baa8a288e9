"""SageMaker's refusals are told apart by code and words; the sentences are the service's own."""

import pytest
from botocore.exceptions import ClientError

from stockpicker_dagster.training.platforms.errors import already_exists, client_error, error_code, is_missing


@pytest.mark.parametrize(
    ("code", "message", "missing", "taken"),
    [
        ("ValidationException", "Requested resource not found.", True, False),
        ("ValidationException", 'Could not find endpoint "arn:aws:sagemaker:...:endpoint/x".', True, False),
        ("ResourceNotFound", "Requested resource not found.", True, False),
        ("ResourceInUse", "Job name must be unique within an AWS account and region", False, True),
        ("ValidationException", 'Cannot create already existing endpoint "arn:..."', False, True),
        ("ValidationException", "1 validation error detected: Value at 'roleArn' failed", False, False),
        ("ResourceLimitExceeded", "The account-level service limit is 0 Instances", False, False),
        ("AccessDeniedException", "User is not authorized; role not found", False, False),
    ],
)
def test_what_is_missing_and_what_is_taken(code: str, message: str, missing: bool, taken: bool) -> None:
    error = client_error("CreateEndpoint", code, message)
    assert isinstance(error, ClientError)
    assert (error_code(error), is_missing(error), already_exists(error)) == (code, missing, taken)
    assert str(error) == f"An error occurred ({code}) when calling the CreateEndpoint operation: {message}"
