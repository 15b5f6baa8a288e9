"""How the first administrator comes in: by a link that is printed on the terminal only, once, and lasts 15 minutes.

Until then nothing else answers. The link shows a form; only sending that form uses it up, because mail scanners and
browsers' previews follow links. What the link carries is in no database and no log: it ends with this process.
"""

import hmac
from datetime import datetime, timedelta
from threading import Lock

from sqlalchemy import Engine

from stockpicker_dagster.trading.people import secrets
from stockpicker_dagster.trading.people.directory import people_exist

LASTS = timedelta(minutes=15)


class FirstPersonLink:
    """The one link of this start; `token` is None where somebody is in the directory already."""

    def __init__(self, engine: Engine, now: datetime) -> None:
        self._engine = engine
        self._expires_at = now + LASTS
        self._lock = Lock()
        self._somebody = False
        self.token = secrets.new_token() if self.nobody_yet() else None

    def nobody_yet(self) -> bool:
        """Whether the directory of people is empty. Nobody ever leaves it, so that one answer is looked up once."""
        if not self._somebody:
            with self._engine.connect() as connection:
                self._somebody = people_exist(connection)
        return not self._somebody

    def opens(self, token: str, now: datetime) -> bool:
        """Whether this token still lets somebody in; asking does not use it up."""
        return (
            self.token is not None
            and now < self._expires_at
            and hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self.token.encode())
        )

    def use(self, token: str, now: datetime) -> bool:
        """Uses the token up: true for one caller, once."""
        with self._lock:
            if not self.opens(token, now):
                return False
            self.token = None
            return True

    def give_back(self, token: str) -> None:
        """Makes a token usable again whose form was refused, such as for a password that is too short."""
        with self._lock:
            self.token = token
