"""What AWS refuses, said in one sentence with the way out.

The codes are those of the services' API references. Secrets are in no message: AWS itself puts none into errors, and
nothing of the request is repeated here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from stockpicker_dagster.errors import StockPickerError

_CREDENTIALS = "sign in again, or give the process a role; see docs/aws.md"
_WAYS_OUT = {
    "ExpiredToken": f"the credentials have expired: {_CREDENTIALS}",
    "ExpiredTokenException": f"the credentials have expired: {_CREDENTIALS}",
    "RequestExpired": "this machine's clock is off, or the credentials have expired: set the clock, sign in again",
    "RequestTimeTooSkewed": "this machine's clock is off: set it, such as by chrony or systemd-timesyncd",
    "InvalidClientTokenId": f"the access key is unknown: {_CREDENTIALS}",
    "UnrecognizedClientException": f"the access key is unknown: {_CREDENTIALS}",
    "InvalidAccessKeyId": f"the access key is unknown: {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key does not belong to the access key: {_CREDENTIALS}",
    "AccessDenied": "attach the policies that `stockpicker cold-start --policies` prints; a bucket of another account "
    "answers so, too",
    "AccessDeniedException": "attach the policies that `stockpicker cold-start --policies` prints",
    "403": "attach the policies that `stockpicker cold-start --policies` prints; a bucket of another account "
    "answers so, too",
    "NoSuchBucket": "create it with `stockpicker cold-start`",
    "BucketAlreadyExists": "another account has that name: set STOCKPICKER_AWS_PREFIX to another prefix",
    "ResourceLimitExceeded": "the account's quota is reached: raise it in Service Quotas, or name another "
    "instance_type",
    "ThrottlingException": "AWS asks to be asked less often, after every attempt: run again in a few minutes",
    "Throttling": "AWS asks to be asked less often, after every attempt: run again in a few minutes",
    "SlowDown": "S3 asks to be asked less often, after every attempt: run again in a few minutes",
    "KMS.DisabledException": "the KMS key is disabled: enable it, or name another one",
    "KMS.NotFoundException": "the KMS key does not exist in this region: name another one",
    "KMSAccessDeniedException": "the KMS key's policy does not let this role use it: allow kms:Decrypt and "
    "kms:GenerateDataKey",
}
_TRY_AGAIN = "AWS failed after every attempt; nothing is half-written: run again"


class AwsRefusal(StockPickerError):
    """AWS answered with an error, or not at all. `code` is the service's own word for it."""

    def __init__(self, doing: str, code: str, said: str) -> None:
        self.code = code
        way_out = _WAYS_OUT.get(code)
        if way_out is None and "kms" in said.lower():
            way_out = _WAYS_OUT["KMSAccessDeniedException"]
        if way_out is None and (code in ("InternalError", "ServiceUnavailable", "InternalFailure") or code[:1] == "5"):
            way_out = _TRY_AGAIN
        super().__init__(f"{doing}, and it was refused: {code}: {said}" + (f"; {way_out}" if way_out else ""))


@contextmanager
def asking(doing: str) -> Iterator[None]:
    """Turns botocore's errors inside into `AwsRefusal`; `doing` begins the sentence."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

    try:
        yield
    except ClientError as error:
        about = error.response.get("Error", {})
        raise AwsRefusal(doing, str(about.get("Code", "unknown")), str(about.get("Message", error))) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise AwsRefusal(doing, "NoCredentials", f"{error}; {_CREDENTIALS}") from error
    except BotoCoreError as error:
        raise AwsRefusal(doing, type(error).__name__, f"{error}; {_TRY_AGAIN}") from error


def code_of(error: BaseException) -> str:
    """The service's code of a botocore `ClientError`; "" for anything else."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
