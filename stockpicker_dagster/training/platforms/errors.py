"""SageMaker's refusals, made and told apart: one error class of botocore, whose code and message say which it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from stockpicker_dagster.storage.aws.errors import AwsRefusal, asking
from stockpicker_dagster.training.platforms import Jobs, PlatformFailure

_BUSY = ("TooManyRequestsException", "RequestLimitExceeded", "SlowDown", "ServiceUnavailable", "RequestTimeout")
_STATUS = {"ResourceNotFound": 404, "ModelError": 424, "ServiceUnavailable": 503, "ModelNotReadyException": 429}


def client_error(operation: str, code: str, message: str, **more: Any) -> ClientError:
    """What boto3 raises when `operation` (such as `CreateTrainingJob`) is refused with `code`."""
    answer: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": _STATUS.get(code, 400)},
        **more,
    }
    return ClientError(answer, operation)


def error_code(error: BaseException) -> str:
    """The code, such as `ResourceInUse`; empty if there is none."""
    return _said(error)[0]


def is_missing(error: BaseException) -> bool:
    """Whether what was asked about does not exist: SageMaker has several ways to say so."""
    code, message = _said(error)
    said = "could not find" in message or "not found" in message or "does not exist" in message
    return code == "ResourceNotFound" or (code.startswith("Validation") and said)


def already_exists(error: BaseException) -> bool:
    """Whether the name is taken: jobs say `ResourceInUse`, models, configurations and endpoints say it in words."""
    code, message = _said(error)
    return code == "ResourceInUse" or "already exist" in message


def is_denied(error: BaseException) -> bool:
    """Whether the right to it is lacking, or rests on a tag that is not there: yet, or because the thing is gone."""
    return error_code(error) in ("AccessDeniedException", "AccessDenied")


def _said(error: BaseException) -> tuple[str, str]:
    """Code and message, in small letters, of a service's answer; empty for what is none, such as a lost connection."""
    about = error.response.get("Error", {}) if isinstance(error, ClientError) else {}
    return str(about.get("Code", "")), str(about.get("Message", "")).lower()


def is_passing(error: Exception) -> bool:
    """Whether it may go well a little later: the service was too busy, failed by itself, or was not reached."""
    if isinstance(error, BotoCoreError):
        return "Credentials" not in type(error).__name__ and "Validation" not in type(error).__name__
    if not isinstance(error, ClientError):
        return False
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    return status >= 500 or status == 429 or "Throttl" in error_code(error) or error_code(error) in _BUSY


@contextmanager
def refusals(platform: Jobs, doing: str) -> Iterator[None]:
    """Turns botocore's errors inside into `PlatformFailure`, with the way out; `doing` says what was tried."""
    try:
        with asking(doing):
            yield
    except AwsRefusal as error:
        raise PlatformFailure(f"the platform {platform.name} refused: {error}") from error
