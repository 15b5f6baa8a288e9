"""Where notices go: addresses in apprise's notation, set by an administrator.

Only services with an encrypted line are allowed, no address may lead into a private network, and nothing in an address
may switch off checks or read files. Addresses hold secrets: they are shown by kind alone, and one can be kept in the
environment, as `env:NAME`.
"""

import json
import logging
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

from sqlalchemy import Engine, insert, select, update

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.notifications.network import PrivateAddress, loopback_allowed, refuse_private_host

KINDS = ("proposal", "decision", "execution", "halt", "ranking")

HOSTED = frozenset({"mailtos", "ntfys", "gotifys", "jsons", "matrixs", "mmosts", "rockets", "signals"})
"""Services on a server that the address names."""
SERVICES = frozenset(
    {"slack", "tgram", "discord", "msteams", "workflows", "pover", "twilio", "vonage", "sns", "ses", "sendgrid"}
    | {"mailgun", "pagerduty", "opsgenie", "whatsapp", "zulip", "wxteams", "ntfys"}
)
"""Services at an address of their own."""
_FOR_TESTS = frozenset({"json", "mailto", "ntfy"})
"""Without encryption; only to this very machine, and only with the test setting."""
_FORBIDDEN = frozenset({"verify", "template", "attach", "include", "pgp", "pgpkey", "pgppub", "redirect"})
"""Parameters that would switch checks off, or read files."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_FROM_ENVIRONMENT = re.compile(r"env:([A-Z][A-Z0-9_]{0,80})")


@dataclass(frozen=True)
class Target:
    """One place where notices go; `address` without its secrets, `kinds` None for all of them."""

    name: str
    address: str
    kinds: tuple[str, ...] | None
    created_by: str
    created_at: datetime
    disabled: bool


def set_target(
    engine: Engine, name: str, url: str, who: str, now: datetime, kinds: Collection[str] | None = None
) -> Target:
    """Adds or replaces a target; raises `InvalidInput` for an address that is not allowed, without repeating it.

    Who may is asked by whoever calls.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is no name of a target; allowed: a lower-case letter, then up to 40 of a-z 0-9 _ -"
        )
    unknown = sorted(set(kinds or ()) - set(KINDS))
    if unknown:
        raise InvalidInput(f"{unknown[0]!r} is no kind of notice; allowed: {', '.join(KINDS)}")
    if not _FROM_ENVIRONMENT.fullmatch(url):
        check_address(url)
    table = ledger.notice_targets
    said = {
        "url": url,
        "kinds": None if kinds is None else json.dumps(sorted(kinds)),
        "created_by": who,
        "created_at": now,
        "disabled_at": None,
    }
    with transaction(engine) as connection:
        if not connection.execute(update(table).where(table.c.name == name).values(**said)).rowcount:
            connection.execute(insert(table).values(name=name, **said))
    return next(target for target in targets(engine) if target.name == name)


def disable_target(engine: Engine, name: str, now: datetime) -> None:
    """Sends nothing more there; raises `InvalidInput` for one that is not there or disabled already."""
    table = ledger.notice_targets
    here = (table.c.name == name) & table.c.disabled_at.is_(None)
    with transaction(engine) as connection:
        if not connection.execute(update(table).where(here).values(disabled_at=now)).rowcount:
            raise InvalidInput(f"there is no target {name!r} in use; `stockpicker notices` lists them")


def targets(engine: Engine) -> list[Target]:
    """All of them, by name."""
    table = ledger.notice_targets
    with engine.connect() as connection:
        rows = connection.execute(select(table).order_by(table.c.name)).all()
    return [
        Target(
            row.name,
            masked(row.url),
            None if row.kinds is None else tuple(json.loads(row.kinds)),
            row.created_by,
            row.created_at,
            row.disabled_at is not None,
        )
        for row in rows
    ]


def masked(url: str) -> str:
    """An address by its kind alone: in some, every part is a secret."""
    return url if _FROM_ENVIRONMENT.fullmatch(url) else f"{url.split(':', 1)[0]}://..."


def resolved(url: str) -> str:
    """The address itself, read from the environment where it is kept there; raises `InvalidInput`."""
    found = _FROM_ENVIRONMENT.fullmatch(url)
    if found is None:
        return url
    value = os.environ.get(found.group(1), "").strip()
    if not value:
        raise InvalidInput(f"the environment has no {found.group(1)}, which holds the address of a target")
    return value


def check_address(url: str) -> Any:
    """The sender for an address; raises `InvalidInput` for one that is not allowed, without repeating it."""
    import apprise

    # It writes addresses into its log in full.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    scheme = url.split(":", 1)[0].lower()
    allowed = HOSTED | SERVICES | (_FOR_TESTS if loopback_allowed() else frozenset())
    if scheme not in allowed:
        raise InvalidInput(
            f"notices cannot go to addresses of the kind {scheme[:20]!r}; allowed: {', '.join(sorted(allowed))}"
        )
    # Wherever they stand: apprise reads parameters behind a fragment too.
    asked = re.split(r"[?&;]", url)[1:]
    names = {unquote_plus(part.split("=", 1)[0]).strip().lower().lstrip("+-:") for part in asked}
    if names & _FORBIDDEN:
        raise InvalidInput(f"the {scheme} address sets {', '.join(sorted(names & _FORBIDDEN))}, which is not allowed")
    asset = apprise.AppriseAsset(async_mode=False, secure_logging=True, plugin_paths=[])
    sender = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if sender is None:
        raise InvalidInput(f"the {scheme} address is not complete; apprise's documentation says how it is written")
    if scheme in HOSTED | _FOR_TESTS:
        # Of a mail address the domain need not be the server.
        host = getattr(sender, "smtp_host", None) or getattr(sender, "host", None) or ""
        try:
            refuse_private_host(str(host).strip("[]"))
        except PrivateAddress as error:
            raise InvalidInput(f"the {scheme} address is refused: {error}") from error
    return sender
