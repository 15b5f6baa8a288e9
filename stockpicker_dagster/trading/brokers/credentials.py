"""A broker's credentials: from the environment, or from one private file of lines `NAME=value`; from nowhere else.

They are never settings, never in the database, a log, an error or Dagster's metadata.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from stockpicker_dagster.errors import InvalidInput

SECRETS_FILE = "STOCKPICKER_SECRETS_FILE"
"""Environment variable that names the file; the environment itself comes first."""


def credential(name: str, account: str, environment: Mapping[str, str] | None = None) -> str:
    """The value of `name`, or of `name` with the account's id behind it, which comes first.

    For the account `us-live` that is `APCA_API_KEY_ID__US_LIVE` before `APCA_API_KEY_ID`. Raises `InvalidInput` where
    neither is set, and for a file that others may read.
    """
    environment = os.environ if environment is None else environment
    own = f"{name}__{account.upper().replace('-', '_')}"
    stored = _stored(environment.get(SECRETS_FILE))
    for wanted in (own, name):
        value = environment.get(wanted) or stored.get(wanted)
        if value and value.strip():
            return value.strip()
    raise InvalidInput(
        f"account {account!r} needs {name}; set it (or {own}, for this account alone) in the environment, or in the "
        f"file that {SECRETS_FILE} names"
    )


def _stored(named: str | None) -> dict[str, str]:
    if not named:
        return {}
    path = Path(named).expanduser()
    try:
        with path.open(encoding="utf-8") as file:
            about = os.fstat(file.fileno())
            if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or about.st_uid != os.getuid():
                raise InvalidInput(f"the secrets file {path} can be read by others; `chmod 600` it, as its owner")
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the secrets file {path} cannot be read ({type(error).__name__})") from error
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#")]
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}
