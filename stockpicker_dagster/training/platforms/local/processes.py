"""Processes that belong to the platform: told apart from others that were given the same number, started, ended.

A number alone names whoever has it now; with the moment at which the process began it names that process or nobody.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
_PASSED_ON_AS_WELL = ("NUMBA_", "OMP_", "OPENBLAS_", "MKL_", "POLARS_", "CUDA_", "COVERAGE_")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def environment() -> dict[str, str]:
    """What a container is given of this process's environment: how to run, and none of the credentials in it."""
    return {
        name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_AS_WELL)
    }


@dataclass(frozen=True)
class ProcessId:
    """A process, for good: its number and when it began."""

    pid: int
    began: float

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The process that has the number now; None if none has, or it has ended and waits to be read."""
        began = _began(pid)
        return None if began is None else cls(pid, began)

    @property
    def alive(self) -> bool:
        return _began(self.pid) == self.began

    def signal_group(self, number: int) -> None:
        """Signals the process and what it started, if it is still itself."""
        if self.alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


def start(run: Callable[[], int], log: Path, environment: dict[str, str], inherited: list[int]) -> int:
    """Forks a process that leads its own group, writes to `log`, and dies with this one; its number.

    `run` gives its exit code, or replaces it; `inherited` are descriptors that it must not keep open. Call it where no
    other thread lives.
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(output)
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        return pid
    code = 1
    try:
        with suppress(PermissionError):
            os.setpgid(0, 0)
        _die_with(parent)
        for descriptor in inherited:
            os.close(descriptor)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        os.close(nothing)
        os.close(output)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - lives as long as the process
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(environment)
        code = run()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        with suppress(OSError):
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, however it ends; elsewhere than on Linux nothing does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _began(pid: int) -> float | None:
    try:
        if sys.platform == "linux":
            # In ticks since the machine started, which no correction of the clock moves.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if fields[0] in "ZX" else float(fields[19])
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (OSError, IndexError, psutil.Error):
        return None
