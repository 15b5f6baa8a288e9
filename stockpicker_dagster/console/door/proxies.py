"""Signing in through a proxy that has done it already: off unless a shared secret is set.

`STOCKPICKER_PROXY_SECRET` turns it on. The proxy sends the secret in `X-StockPicker-Proxy` and the person's name in
`X-StockPicker-Person`; without the right secret the name is as good as not sent. The person must be in the directory:
a proxy vouches for who somebody is, never for what they may do.
"""

import hashlib
import hmac
import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine
from starlette.datastructures import Headers

from stockpicker_dagster.console.door.checks import Refused, same
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.people.directory import Person, UnknownPerson, read_person

SECRET_VARIABLE = "STOCKPICKER_PROXY_SECRET"  # noqa: S105 - the name of the variable
SECRET_HEADER, PERSON_HEADER = "x-stockpicker-proxy", "x-stockpicker-person"
SHORTEST_SECRET = 32


@dataclass(frozen=True)
class TrustedProxy:
    """A proxy that knows `secret`."""

    secret: str

    @classmethod
    def from_environment(cls) -> "TrustedProxy | None":
        """The proxy that the environment names; None where it names none. Raises `InvalidInput` for a short secret."""
        secret = os.environ.get(SECRET_VARIABLE, "")
        if not secret:
            return None
        if len(secret) < SHORTEST_SECRET:
            raise InvalidInput(f"{SECRET_VARIABLE} has {len(secret)} characters; give it {SHORTEST_SECRET} or more")
        return cls(secret)

    def person(self, scope: MutableMapping[str, Any]) -> str | None:
        """Whom the proxy names; None where the request does not come from it."""
        headers = Headers(scope=scope)
        given, named = headers.getlist(SECRET_HEADER), headers.getlist(PERSON_HEADER)
        if len(given) != 1 or len(named) != 1 or not same(given[0], self.secret):
            return None
        return named[0]

    def session_of(self, engine: Engine, name: str, now: datetime) -> tuple[Person, str]:
        """The person of this name and what stands for a session's secret in forms; raises `Refused`."""
        try:
            with engine.connect() as connection:
                person = read_person(connection, name)
        except UnknownPerson as error:
            raise Refused(403, f"the proxy names {name[:64]!r}, who is not in the directory of people") from error
        if person.disabled_at is not None:
            raise Refused(403, f"{person.name} is disabled since {person.disabled_at:%Y-%m-%d}")
        day = f"{person.name} {now:%Y-%m-%d}"
        return person, hmac.new(self.secret.encode(), day.encode(), hashlib.sha256).hexdigest()
