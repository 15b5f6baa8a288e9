"""Who last edited a strategy: the person who wrote its file through the console, else the operating-system user.

Four eyes on a proposal ask for somebody else than the author. What the console wrote is remembered by the file's
digest, so that an edit by hand makes the hand's owner the author.
"""

import getpass
import hashlib
import json
import os
from pathlib import Path

from stockpicker_dagster.home import Home, home

_FILE = "authors.json"


def author_of(file: Path, place: Home | None = None) -> str:
    """The author of a `defs.yaml`: a person's name, or `os:<user>`, the file's owner where that can be told."""
    kept = _read(place or home()).get(file.parent.name, {})
    try:
        if kept.get("digest") == hashlib.sha256(file.read_bytes()).hexdigest():
            return str(kept["person"])
    except OSError:
        pass
    return f"os:{getpass.getuser()}"


def record_author(file: Path, person: str, place: Home | None = None) -> None:
    """Remembers that `person` wrote the file as it is now."""
    where = place or home()
    kept = _read(where)
    kept[file.parent.name] = {"person": person, "digest": hashlib.sha256(file.read_bytes()).hexdigest()}
    folder = where.root / "console"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = folder / f".{_FILE}.{os.getpid()}"
    fresh.write_text(json.dumps(kept, indent=2, sort_keys=True))
    fresh.replace(folder / _FILE)


def _read(place: Home) -> dict[str, dict[str, str]]:
    try:
        found = json.loads((place.root / "console" / _FILE).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
