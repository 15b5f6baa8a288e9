"""The process that keeps watch over one job or endpoint, detached from whoever asked for it.

It is a session of its own, so that neither the end of a step nor of a terminal ends it, and it holds the record's lock
for as long as it lives.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from stockpicker_dagster.training.platforms.local.processes import environment
from stockpicker_dagster.training.platforms.local.records import Record

MODULE = "stockpicker_dagster.training.platforms.local.supervisor"


def supervise(folder: Path, warm: bool = False) -> None:
    """Supervises the record in `folder` until its end; nothing if it has ended or is supervised already."""
    from stockpicker_dagster.training.platforms.local import endpoints, processing_jobs, training_jobs, transform_jobs

    record = Record(folder)
    kinds = {
        "training-jobs": ("TrainingJobStatus", training_jobs.ENDED, training_jobs.supervise),
        "transform-jobs": ("TransformJobStatus", transform_jobs.ENDED, transform_jobs.supervise),
        "processing-jobs": ("ProcessingJobStatus", processing_jobs.ENDED, processing_jobs.supervise),
        "endpoints": ("EndpointStatus", endpoints.ENDED, endpoints.supervise),
    }
    status, ends, run = kinds[folder.parent.name]
    with contextlib.suppress(FileNotFoundError), record.alone() as lock:
        if record.state.get(status) not in ends:
            run(record, lock, warm)


def detach(folder: Path, warm: bool = False) -> None:
    """Forks the supervisor of `folder`; this process is not its parent, and need not wait for it."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    code = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1):
            os.dup2(nothing, descriptor)
        errors = os.open(folder / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(errors, 2)
        os.closerange(3, 256)
        os.chdir("/")
        supervise(folder, warm)
        code = 0
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def launch(folder: Path, patience: float = 60.0) -> bool:
    """Starts a supervisor, from a warm process where there is one; whether it has taken over."""
    from stockpicker_dagster.training.platforms.local import warm

    if not warm.launch(folder):
        command = [sys.executable, "-m", MODULE, str(folder)]
        # Arguments are ours; the folder is where the command is run, so that the package is found as it is here.
        subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, check=False)
    record, until = Record(folder), time.monotonic() + patience
    while not record.supervised and record.state["LastModifiedTime"] == record.state["CreationTime"]:
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


if __name__ == "__main__":
    detach(Path(sys.argv[1]))
