"""SageMaker's refusals, made and told apart: one error class of botocore, whose code and message say which it is."""

from typing import Any

from botocore.exceptions import ClientError

_STATUS = {"ResourceNotFound": 404, "ModelError": 424, "ServiceUnavailable": 503, "ModelNotReadyException": 429}


def client_error(operation: str, code: str, message: str, **more: Any) -> ClientError:
    """What boto3 raises when `operation` (such as `CreateTrainingJob`) is refused with `code`."""
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": _STATUS.get(code, 400)},
        **more,
    }
    return ClientError(answer, operation)


def error_code(error: ClientError) -> str:
    """The code, such as `ResourceInUse`; empty if there is none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_missing(error: ClientError) -> bool:
    """Whether what was asked about does not exist: SageMaker has several ways to say so."""
    message = str(error.response.get("Error", {}).get("Message", "")).lower()
    said = "could not find" in message or "not found" in message or "does not exist" in message
    return error_code(error) == "ResourceNotFound" or (error_code(error).startswith("Validation") and said)


def already_exists(error: ClientError) -> bool:
    """Whether the name is taken: jobs say `ResourceInUse`, models, configurations and endpoints say it in words."""
    message = str(error.response.get("Error", {}).get("Message", "")).lower()
    return error_code(error) == "ResourceInUse" or "already exist" in message
