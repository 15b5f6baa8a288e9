"""The one folder that holds all state: the lake, the database and Dagster's home.

`STOCKPICKER_HOME` names it; unset, it is `.stockpicker/` in the project root, wherever the command was started. The
database's URL and the lake's root come from the environment or from here, never from Dagster's configuration, because
run configuration can be edited by whoever may launch a run.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from stockpicker_dagster.code_version import code_version
from stockpicker_dagster.errors import StockPickerError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
_DAGSTER_DATABASE = "STOCKPICKER_DAGSTER_DATABASE_URL"


class UnusableHome(StockPickerError):
    """The state folder cannot be created or written."""


@dataclass(frozen=True)
class Home:
    """The state folder and what lives where in it."""

    root: Path

    @property
    def lake(self) -> Path:
        """The root of the lake."""
        return self.root / "lake"

    @property
    def dagster(self) -> Path:
        """`DAGSTER_HOME`: Dagster's run and event storage, and its `dagster.yaml`."""
        return self.root / "dagster"

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the ledger: `STOCKPICKER_DATABASE_URL`, else a SQLite file in the home."""
        return os.environ.get("STOCKPICKER_DATABASE_URL") or f"sqlite:///{self.root / 'stockpicker.sqlite'}"


def home() -> Home:
    """The state folder named by `STOCKPICKER_HOME`, or the default; nothing is created."""
    named = os.environ.get("STOCKPICKER_HOME")
    return Home(Path(named).expanduser().absolute() if named else PROJECT_ROOT / ".stockpicker")


def prepare_home(*, announce: bool = True) -> Home:
    """Creates the state folder (mode 0700), points Dagster at it and names it on stderr.

    Raises `UnusableHome` if the folder cannot be created or written.
    """
    place = home()
    try:
        for folder in (place.root, place.lake, place.dagster):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        probe = place.root / ".writable"
        probe.touch()
        probe.unlink()
        _copy_instance_settings(place)
    except OSError as error:
        raise UnusableHome(
            f"the state folder {place.root} cannot be written ({error.strerror}); "
            "make it writable or set STOCKPICKER_HOME to a folder that is"
        ) from error
    # With DAGSTER_HOME set, Dagster does not read the dagster.yaml of the project root: hence the copy.
    os.environ["DAGSTER_HOME"] = str(place.dagster)
    keep_compiled_kernels(place)
    if announce:
        print(f"stockpicker: state is in {place.root}", file=sys.stderr)  # noqa: T201
    return place


def keep_compiled_kernels(place: Home) -> None:
    """Has compiled code kept in the home, apart for each version of the sources; call it before Numba is imported.

    Numba notices a change in the file of a kernel, but not in the file of another kernel that it calls: after an update
    it could run a mixture of old and new.
    """
    compiled = place.root / "compiled"
    os.environ.setdefault("NUMBA_CACHE_DIR", str(compiled / code_version()))
    for stale in compiled.glob("*"):
        if stale.name != code_version():
            shutil.rmtree(stale, ignore_errors=True)


def _copy_instance_settings(place: Home) -> None:
    on_postgres = os.environ.get(_DAGSTER_DATABASE)
    if on_postgres:
        # SQLAlchemy 2.1 would take psycopg for the plain form, and Dagster's NOTIFY works with psycopg2 alone.
        scheme, _, rest = on_postgres.partition("://")
        if scheme in ("postgresql", "postgres"):
            os.environ[_DAGSTER_DATABASE] = f"postgresql+psycopg2://{rest}"
    settings = PROJECT_ROOT / ("dagster.postgres.yaml" if on_postgres else "dagster.yaml")
    copy = place.dagster / "dagster.yaml"
    if settings.is_file() and (not copy.is_file() or copy.read_bytes() != settings.read_bytes()):
        shutil.copyfile(settings, copy)
