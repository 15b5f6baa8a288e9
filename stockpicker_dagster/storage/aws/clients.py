"""boto3's clients, made once each, with retries and time-outs of our own.

Retries of botocore back off exponentially with jitter. List calls of SageMaker are throttled hard; hence its adaptive
mode, which slows down by itself.
"""

import os
from functools import lru_cache
from typing import Any

from stockpicker_dagster.errors import InvalidInput

_ATTEMPTS = 8
_CONNECTIONS = 32


def region() -> str:
    """The region of the environment, or of the profile. Raises `InvalidInput` where none is named."""
    named = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not named:
        import boto3

        named = boto3.session.Session().region_name
    if not named:
        raise InvalidInput("no AWS region is named; set AWS_REGION, such as AWS_REGION=eu-central-1")
    return named


def client(service: str) -> Any:
    """The client of a service in the deployment's region; clients may be shared by threads."""
    return _client(service, region(), os.environ.get("AWS_PROFILE"), _endpoint(service), _attempts())


def forget_clients() -> None:
    """Lets the next call make its client anew, with credentials that were changed in the meantime."""
    _client.cache_clear()


def endpoint_is_plain_http(service: str) -> bool:
    """Whether the service is an emulator without TLS."""
    return (_endpoint(service) or "").startswith("http://")


def _endpoint(service: str) -> str | None:
    own = os.environ.get(f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_').replace('.', '_')}")
    return own or os.environ.get("AWS_ENDPOINT_URL")


def _attempts() -> int:
    return int(os.environ.get("AWS_MAX_ATTEMPTS") or _ATTEMPTS)


@lru_cache(maxsize=32)
def _client(service: str, where: str, profile: str | None, endpoint: str | None, attempts: int) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "adaptive" if service == "sagemaker" else "standard", "total_max_attempts": attempts},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=_CONNECTIONS,
        user_agent_extra="stockpicker",
        # An emulator on an address of this machine knows no host names of buckets.
        s3={"addressing_style": "path"} if endpoint else {},
    )
    session = boto3.session.Session(region_name=where, profile_name=profile)
    return session.client(service, endpoint_url=endpoint, config=config)
