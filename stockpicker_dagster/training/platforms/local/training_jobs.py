"""Supervising one training job: its folders, its process, its end, what it used and what it left.

This runs in the job's supervisor, which outlives whoever asked for the job.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import tarfile
import time
from pathlib import Path
from typing import Any

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.training.container.layout import FAILURE_CHARACTERS, Layout
from stockpicker_dagster.training.platforms.local.container_process import ContainerProcess
from stockpicker_dagster.training.platforms.local.locations import files_under, path_of
from stockpicker_dagster.training.platforms.local.records import INTERNAL, Record, now

ENDED = ("Completed", "Failed", "Stopped")
_METRICS = 512 * 2**10
"""So much of the end of a log is searched for metrics."""


def initial_state(request: dict[str, Any], arn: str, stop_seconds: float) -> dict[str, Any]:
    """The state of a job that nobody has begun to supervise."""
    moment = now()
    return {
        "TrainingJobArn": arn,
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Starting",
        "CreationTime": moment,
        "LastModifiedTime": moment,
        "ModelArtifacts": {"S3ModelArtifacts": model_uri(request)},
        "SecondaryStatusTransitions": [
            {"Status": "Starting", "StartTime": moment, "StatusMessage": "Starting the training job"}
        ],
        INTERNAL: {"stop_seconds": stop_seconds},
    }


def model_uri(request: dict[str, Any]) -> str:
    """Where the job leaves its model."""
    output = request["OutputDataConfig"]
    folder = f"{output['S3OutputPath'].rstrip('/')}/{request['TrainingJobName']}/output/model"
    return folder if output.get("CompressionType") == "NONE" else f"{folder}.tar.gz"


def moved(state: dict[str, Any], secondary: str, message: str, **more: Any) -> dict[str, Any]:
    """The state after the next step of its job."""
    moment = now()
    transitions = [dict(each) for each in state.get("SecondaryStatusTransitions", [])]
    if transitions:
        transitions[-1].setdefault("EndTime", moment)
    transitions.append({"Status": secondary, "StartTime": moment, "StatusMessage": message})
    return {
        **state,
        "SecondaryStatus": secondary,
        "LastModifiedTime": moment,
        "SecondaryStatusTransitions": transitions,
        **more,
    }


def ended(state: dict[str, Any], status: str, secondary: str, message: str, **more: Any) -> dict[str, Any]:
    """The state of a job that has ended as `status`."""
    began = state.get("TrainingStartTime")
    seconds = {} if began is None else {"TrainingTimeInSeconds": int(now() - began)}
    last = moved(state, secondary, message, TrainingJobStatus=status, TrainingEndTime=now(), **seconds, **more)
    last["SecondaryStatusTransitions"][-1]["EndTime"] = now()
    return last


def supervise(record: Record, lock: int, warm: bool) -> None:
    """Runs the job to its end; whatever happens to it is in its state."""
    request, state = record.request, record.state
    layout = Layout(record.folder / "ml")
    try:
        state = moved(state, "Downloading", "Downloading input data")
        record.write(state)
        _lay_out(layout, request)
        state = moved(state, "Training", "Training image is running", TrainingStartTime=now())
        asked = request["AlgorithmSpecification"]
        command = [*(asked.get("ContainerEntrypoint") or []), *(asked.get("ContainerArguments") or [])]
        process = ContainerProcess("train", layout, _environment(request, state), record.log, lock, warm, command)
        state[INTERNAL]["process"] = vars(process.id)
        record.write(state)
        state = _follow(record, state, process, request, layout)
    except (OSError, StockPickerError) as error:
        state = ended(state, "Failed", "Failed", "Failed", FailureReason=f"ClientError: {error}")
    _write_at_last(record, state)


def _follow(
    record: Record, state: dict[str, Any], process: ContainerProcess, request: dict[str, Any], layout: Layout
) -> dict[str, Any]:
    allowed = float((request.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds", 86_400))
    began, overran, stopping = time.monotonic(), False, False
    while process.poll() is None:
        overran = time.monotonic() - began > allowed
        if not stopping and (overran or record.asked_to_stop):
            stopping = True
            why = "the job ran for longer than it may" if overran else "the job was stopped"
            if not overran:
                state = moved(state, "Stopping", why, TrainingJobStatus="Stopping")
                record.write(state)
            process.end(state[INTERNAL]["stop_seconds"])
            break
        process.wait(0.01 if time.monotonic() - began < 2 else 0.1)
    code = process.ended_with()
    used = [{"MetricName": name, "Value": value, "Timestamp": now()} for name, value in process.used().items()]
    state["FinalMetricDataList"] = [*_metrics(record.log, request), *used]
    state[INTERNAL]["exit_code"] = code
    if code == 0 and not stopping:
        state = moved(state, "Uploading", "Uploading generated training model")
        record.write(state)
        _upload(layout.model, path_of(model_uri(request)))
        return ended(state, "Completed", "Completed", "Training job completed")
    if stopping:
        if any(layout.model.glob("*")):
            _upload(layout.model, path_of(model_uri(request)))
        secondary = "MaxRuntimeExceeded" if overran else "Stopped"
        return ended(state, "Stopped", secondary, secondary)
    return ended(state, "Failed", "Failed", "Failed", FailureReason=_reason(layout, code))


def _lay_out(layout: Layout, request: dict[str, Any]) -> None:
    """Makes the folders that the container finds; data is linked, not copied."""
    for folder in (layout.config, layout.data, layout.model, layout.failure.parent):
        folder.mkdir(parents=True, exist_ok=True)
    channels: dict[str, Any] = {}
    for channel in request.get("InputDataConfig") or []:
        name, source = channel["ChannelName"], channel["DataSource"]["S3DataSource"]
        files = files_under(source["S3Uri"])
        if not files:
            raise FileNotFoundError(f"Data download failed: no file at {source['S3Uri']} of the channel {name!r}")
        for file, place in files:
            target = layout.data / name / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(file)
        content = {"ContentType": channel["ContentType"]} if "ContentType" in channel else {}
        channels[name] = {
            "TrainingInputMode": channel.get("InputMode") or request["AlgorithmSpecification"]["TrainingInputMode"],
            "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
            "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            **content,
        }
    hosts = [f"algo-{number + 1}" for number in range(request["ResourceConfig"].get("InstanceCount", 1))]
    layout.hyperparameters.write_text(json.dumps(request.get("HyperParameters") or {}))
    layout.channels.write_text(json.dumps(channels))
    layout.resources.write_text(json.dumps({"current_host": hosts[0], "hosts": hosts, "network_interface_name": "lo"}))
    if checkpoints := request.get("CheckpointConfig"):
        kept = path_of(checkpoints["S3Uri"])
        kept.mkdir(parents=True, exist_ok=True)
        layout.checkpoints.symlink_to(kept)


def _environment(request: dict[str, Any], state: dict[str, Any]) -> dict[str, str]:
    return {
        **(request.get("Environment") or {}),
        "TRAINING_JOB_NAME": request["TrainingJobName"],
        "TRAINING_JOB_ARN": state["TrainingJobArn"],
    }


def _reason(layout: Layout, code: int) -> str:
    """Why a container failed, in the words of its failure file."""
    try:
        said = layout.failure.read_text(errors="replace")[:FAILURE_CHARACTERS].strip()
    except OSError:
        said = ""
    if code < 0:
        name = signal.Signals(-code).name
        said = said or (f"it was ended by {name}" + (", as by a lack of memory" if code == -signal.SIGKILL else ""))
        return f"AlgorithmError: {said}"
    return f"AlgorithmError: {said or 'it said no reason; its log says more'}, exit code: {code}"


def _metrics(log: Path, request: dict[str, Any]) -> list[dict[str, Any]]:
    """The last value of every metric that the request defines, as the log has it."""
    definitions = request["AlgorithmSpecification"].get("MetricDefinitions") or []
    if not definitions:
        return []
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _METRICS))
        text = file.read().decode(errors="replace")
    found = []
    for definition in definitions:
        matches = re.findall(definition["Regex"], text, re.MULTILINE)
        last = matches[-1] if matches else None
        value = last[0] if isinstance(last, tuple) else last
        try:
            found.append({"MetricName": definition["Name"], "Value": float(value or ""), "Timestamp": now()})
        except ValueError:
            continue
    return found


def _upload(model: Path, target: Path) -> None:
    """Puts the model where the job's output belongs; it appears whole."""
    fresh = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.name.endswith(".tar.gz"):
            with tarfile.open(fresh, "w:gz", compresslevel=1) as archive:
                for file in sorted(model.rglob("*")):
                    if file.is_file():
                        archive.add(file, file.relative_to(model).as_posix(), recursive=False)
        else:
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(model, fresh)
            shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    except OSError as error:
        raise OSError(f"Artifact upload failed: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            if fresh.is_dir():
                shutil.rmtree(fresh, ignore_errors=True)
            fresh.unlink(missing_ok=True)


def _write_at_last(record: Record, state: dict[str, Any], patience: float = 60.0) -> None:
    """Writes how a job ended; where the disk refuses, again and again for a while, since nobody else knows it."""
    waited = time.monotonic() + patience
    while True:
        try:
            record.write(state)
        except OSError:
            if not record.folder.exists() or time.monotonic() > waited:
                return
            time.sleep(0.5)
        else:
            return
