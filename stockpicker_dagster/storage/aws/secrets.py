"""Secrets from the environment or from AWS Secrets Manager, and nowhere else.

A secret is read when it is needed, kept in this process's memory alone, and never part of a log, an error, run
configuration, a tag or metadata: whatever may be shown has to come from `storage.aws.settings` instead.
"""

import json
from functools import lru_cache
from urllib.parse import quote

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.aws.clients import client
from stockpicker_dagster.storage.aws.errors import asking

DATABASE_SECRET = "STOCKPICKER_DATABASE_SECRET"  # noqa: S105 - the name of a variable


@lru_cache(maxsize=8)
def secret(name: str) -> str:
    """The text of a secret, by name or ARN, read once in a process. Raises `AwsRefusal` naming it."""
    with asking(f"the secret {name} was to be read"):
        return str(client("secretsmanager").get_secret_value(SecretId=name)["SecretString"])


def database_url_in(name: str) -> str:
    """The URL of a database from a secret: the URL itself, or the document that RDS keeps there.

    Raises `InvalidInput`, which never repeats what the secret holds.
    """
    text = secret(name).strip()
    if not text.startswith("{"):
        return text
    try:
        about = json.loads(text)
        user, password = quote(str(about["username"]), safe=""), quote(str(about["password"]), safe="")
        port, database = about.get("port", 5432), about.get("dbname") or "stockpicker"
        return f"postgresql://{user}:{password}@{about['host']}:{port}/{database}?sslmode=require"
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"the secret {name} is neither a database URL nor RDS's document; it needs username, password and host"
        ) from error.with_traceback(None)
