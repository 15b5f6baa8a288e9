"""One running container on this machine: a process in the image's place, that its supervisor can watch and end."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stockpicker_dagster.training.container.layout import ROOT, Layout
from stockpicker_dagster.training.platforms.local.processes import ProcessId, environment, start

MODULE = "stockpicker_dagster.training.container"


class ContainerProcess:
    """`train` or `serve` under `layout`; only the process that made it may ask how it ended.

    `warm` says that this process has loaded what the container needs, so that forking it spares loading that again.
    `command` is run in the place of the image's own entry point.
    """

    def __init__(
        self,
        role: str,
        layout: Layout,
        variables: dict[str, str],
        log: Path,
        lock: int,
        warm: bool = False,
        command: Sequence[str] = (),
    ) -> None:
        variables = {**environment(), **variables, ROOT: str(layout.root), "PYTHONUNBUFFERED": "1"}

        def run() -> int:
            if command or not warm:
                program = list(command) or [sys.executable, "-m", MODULE, role]
                os.execvpe(program[0], program, variables)  # noqa: S606
            from stockpicker_dagster.training.container.__main__ import main

            return main([role])

        self._began = time.monotonic()
        self._code: int | None = None
        self._cpu = self._memory = 0.0
        pid = start(run, log, variables, [lock])
        self.id = ProcessId.of(pid) or ProcessId(pid, -1.0)

    def poll(self) -> int | None:
        """How it ended (less than 0: by that signal), None while it runs."""
        if self._code is None:
            pid, status, used = os.wait4(self.id.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
                self._cpu = used.ru_utime + used.ru_stime
                self._memory = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
                # What it started and left behind goes with it.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.id.pid, signal.SIGKILL)
        return self._code

    def wait(self, seconds: float) -> None:
        """Waits so long, or less if it ends."""
        until = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < until:
            time.sleep(min(0.01, seconds))

    def end(self, patience: float) -> None:
        """SIGTERM, and SIGKILL to whatever is left after `patience` seconds."""
        self.id.signal_group(signal.SIGTERM)
        self.wait(patience)
        if self.poll() is None:
            self.id.signal_group(signal.SIGKILL)
            self.wait(30)

    def ended_with(self) -> int:
        """How it ended; -SIGKILL if it has not, and cannot be ended."""
        code = self.poll()
        return -signal.SIGKILL if code is None else code

    def used(self) -> dict[str, float]:
        """What it used: seconds of processor, the most memory in bytes, and seconds from start to end."""
        return {
            "cpu_seconds": round(self._cpu, 3),
            "peak_memory_bytes": self._memory,
            "wall_seconds": round(time.monotonic() - self._began, 3),
        }
