"""Supervising one processing job: its input and output folders, its process, its end.

This runs in the job's supervisor, which outlives whoever asked for the job.
"""

import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.training.container.layout import FAILURE_CHARACTERS, Layout
from stockpicker_dagster.training.platforms.local.container_process import ContainerProcess
from stockpicker_dagster.training.platforms.local.locations import files_under, path_of
from stockpicker_dagster.training.platforms.local.records import INTERNAL, Record, now

ENDED = ("Completed", "Failed", "Stopped")
_ROOT = PurePosixPath("/opt/ml")
_END_SECONDS = 30


def initial_state(arn: str) -> dict[str, Any]:
    """The state of a job that nobody has begun to supervise."""
    moment = now()
    return {
        "ProcessingJobArn": arn,
        "ProcessingJobStatus": "InProgress",
        "CreationTime": moment,
        "LastModifiedTime": moment,
        INTERNAL: {},
    }


def supervise(record: Record, lock: int, warm: bool) -> None:
    """Runs the job to its end; whatever happens to it is in its state."""
    request, layout = record.request, Layout(record.folder / "ml")
    state = {**record.state, "ProcessingStartTime": now(), "LastModifiedTime": now()}
    record.write(state)
    try:
        _lay_out(layout, request)
        application = request["AppSpecification"]
        arguments = list(application.get("ContainerArguments") or [])
        command = (
            [*application.get("ContainerEntrypoint", []), *arguments] if "ContainerEntrypoint" in application else []
        )
        variables = dict(request.get("Environment") or {})
        process = ContainerProcess(" ".join(arguments), layout, variables, record.log, lock, warm, command)
        state[INTERNAL]["process"] = vars(process.id)
        record.write(state)
        ending = _followed(record, process, request, layout)
    except (OSError, StockPickerError) as error:
        status = "Stopped" if record.asked_to_stop else "Failed"
        ending = {"ProcessingJobStatus": status, "FailureReason": f"ClientError: {error}"[:FAILURE_CHARACTERS]}
    record.write({**state, **ending, "ProcessingEndTime": now(), "LastModifiedTime": now()})


def _followed(record: Record, process: ContainerProcess, request: dict[str, Any], layout: Layout) -> dict[str, Any]:
    """How the job ended; what it made is where the request says once it has ended well."""
    allowed = float((request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds", 86_400))
    until, stopped = now() + allowed, False
    while process.poll() is None:
        if record.asked_to_stop or now() > until:
            stopped = True
            process.end(_END_SECONDS)
        process.wait(0.05)
    if stopped:
        overran = {} if record.asked_to_stop else {"FailureReason": f"it ran for longer than {allowed:.0f} s"}
        return {"ProcessingJobStatus": "Stopped", **overran}
    code = process.ended_with()
    if code == 0:
        for output in (request.get("ProcessingOutputConfig") or {}).get("Outputs") or []:
            _upload(_inside(layout, output["S3Output"]["LocalPath"]), path_of(output["S3Output"]["S3Uri"]))
        return {"ProcessingJobStatus": "Completed"}
    said = layout.message.read_text(errors="replace")[:FAILURE_CHARACTERS] if layout.message.exists() else ""
    reason = f"AlgorithmError: it ended with exit code {code}; its log says more"
    return {"ProcessingJobStatus": "Failed", "FailureReason": reason, **({"ExitMessage": said} if said else {})}


def _inside(layout: Layout, path: str) -> Path:
    """Where a path of the container is on this machine. Raises `InvalidInput` for one outside `/opt/ml/processing`."""
    within = PurePosixPath(path)
    if not within.is_relative_to(_ROOT / "processing") or ".." in within.parts:
        raise InvalidInput(f"LocalPath {path!r} is not below {_ROOT}/processing")
    return layout.root / within.relative_to(_ROOT)


def _lay_out(layout: Layout, request: dict[str, Any]) -> None:
    """Makes the folders that the container finds; input is linked, not copied."""
    for given in request.get("ProcessingInputs") or []:
        source, target = given["S3Input"]["S3Uri"], _inside(layout, given["S3Input"]["LocalPath"])
        files = files_under(source)
        if not files:
            raise FileNotFoundError(f"Data download failed: no file at {source} of the input {given['InputName']!r}")
        for file, place in files:
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (target / place).symlink_to(file)
    layout.message.parent.mkdir(parents=True, exist_ok=True)


def _upload(made: Path, target: Path) -> None:
    """Puts a folder where the job's output belongs; each file appears whole."""
    for file in sorted(made.rglob("*")):
        if not file.is_file():
            continue
        place = target / file.relative_to(made)
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name}.new")
        shutil.copyfile(file, fresh)
        fresh.rename(place)
