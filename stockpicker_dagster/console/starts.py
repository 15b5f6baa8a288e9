"""Strategies started from the console: a `stockpicker run` beside the server, one for a strategy at a time.

What it prints goes to a file in the state folder, so that its progress can be read by anybody and outlives the server.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.home import PROJECT_ROOT
from stockpicker_dagster.strategy_form.base import check_name

_KEPT = 50
_TAIL_BYTES = 64 * 1024


class AlreadyRunning(StockPickerError):
    """The strategy is being run already."""


@dataclass(frozen=True)
class Start:
    """One run that was started here. `status` is its exit status; None while it runs, or where this server is another
    than the one that started it."""

    strategy: str
    started_at: datetime
    by: str
    log: Path
    process: "subprocess.Popen[bytes] | None"

    @property
    def status(self) -> int | None:
        return self.process.poll() if self.process else None

    @property
    def under_way(self) -> bool:
        """Whether it still runs."""
        return self.process is not None and self.process.poll() is None

    def text(self) -> str:
        """The end of what it has printed."""
        with self.log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return _plain(file.read().decode("utf-8", "replace"))


@dataclass
class Starts:
    """The runs of this server, newest first; `folder` keeps what they print."""

    folder: Path
    command: Sequence[str] = (sys.executable, "-m", "stockpicker_dagster.cli", "run")
    _of: dict[str, Start] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def start(self, strategy: str, by: str, now: datetime) -> Start:
        """Starts `stockpicker run STRATEGY`. Raises `AlreadyRunning` while one is under way."""
        check_name(strategy, "a strategy")
        with self._lock:
            if strategy in self._of and self._of[strategy].under_way:
                raise AlreadyRunning(f"{strategy!r} is being run already; wait for it to end")
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            log = self.folder / f"{strategy}-{now:%Y%m%dT%H%M%S}.log"
            with log.open("wb") as out:
                process = subprocess.Popen(
                    [*self.command, strategy],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    cwd=PROJECT_ROOT,
                )
            self._of[strategy] = Start(strategy, now, by, log, process)
            self._forget_old()
            return self._of[strategy]

    def latest(self, strategy: str) -> Start | None:
        """The strategy's newest run, also one that an earlier server started."""
        with self._lock:
            if strategy in self._of:
                return self._of[strategy]
        logs = sorted(self.folder.glob(f"{strategy}-*.log"))
        if not logs:
            return None
        began = datetime.strptime(logs[-1].stem.removeprefix(f"{strategy}-"), "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
        return Start(strategy, began, "an earlier server", logs[-1], None)

    def all(self) -> list[Start]:
        """Every run of this server, newest first."""
        with self._lock:
            return sorted(self._of.values(), key=lambda start: start.started_at, reverse=True)

    def _forget_old(self) -> None:
        for log in sorted(self.folder.glob("*.log"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            log.unlink(missing_ok=True)


def _plain(text: str) -> str:
    """The text without the marks that move a terminal's cursor."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).replace("\r", "\n")
