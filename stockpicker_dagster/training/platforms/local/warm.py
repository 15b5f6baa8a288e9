"""A process that has loaded what every training loads, and forks supervisors that need not load it again.

Loading numpy and Numba takes longer than a small model takes to train. Polars is not among what is loaded: its threads
would not survive a fork. The process belongs to the one that started it, and ends with it. Only on Linux; elsewhere,
and whenever it does not answer, supervisors are started one by one.
"""

import contextlib
import os
import select
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

from stockpicker_dagster.training.platforms.local.processes import environment
from stockpicker_dagster.training.platforms.local.supervisor import detach

MODULE = "stockpicker_dagster.training.platforms.local.warm"
LOADED = ("numpy", "numba", "numba.core.registry", "numba.np.arraymath", "scipy.linalg")
IDLE_SECONDS = 900
_DONE = b"forked\n"

_asking = threading.Lock()
_started: tuple[int, "subprocess.Popen[bytes]"] | None = None


def prepare() -> None:
    """Starts the process, without waiting until it has loaded anything."""
    if sys.platform == "linux":
        with _asking, contextlib.suppress(OSError):
            _process()


def launch(folder: Path) -> bool:
    """Forks the supervisor of the record in `folder`; False if there is no warm process to do it."""
    if sys.platform != "linux":
        return False
    with _asking:
        try:
            process = _process()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{folder}\n".encode())
            process.stdin.flush()
            return process.stdout.readline() == _DONE
        except OSError:
            return False


def _process() -> "subprocess.Popen[bytes]":
    global _started
    if _started is None or _started[0] != os.getpid() or _started[1].poll() is not None:
        command = [sys.executable, "-m", MODULE]
        fresh = subprocess.Popen(
            command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        _started = (os.getpid(), fresh)
    return _started[1]


def _serve() -> None:
    """Forks a supervisor for every line, until nobody can ask any more."""
    for module in LOADED:
        with contextlib.suppress(ImportError):
            import_module(module)
    import_module("stockpicker_dagster.training.platforms.local.training_jobs")
    import_module("stockpicker_dagster.training.container.__main__")
    waiting = b""
    while select.select([0], [], [], IDLE_SECONDS)[0]:
        read = os.read(0, 65_536)
        if not read:
            return
        *lines, waiting = (waiting + read).split(b"\n")
        for line in lines:
            detach(Path(os.fsdecode(line)), warm=True)
            os.write(1, _DONE)


if __name__ == "__main__":
    _serve()
