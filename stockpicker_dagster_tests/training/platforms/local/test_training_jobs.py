"""Training jobs on this machine: what they leave, how they end, and that no killed process is taken for a live one."""

import contextlib
import json
import multiprocessing
import os
import signal
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from stockpicker_dagster.training.models import train_model
from stockpicker_dagster.training.platforms.errors import error_code
from stockpicker_dagster.training.platforms.local import LocalPlatform, warm
from stockpicker_dagster.training.platforms.local.processes import ProcessId
from stockpicker_dagster.training.platforms.local.records import INTERNAL, STATE
from stockpicker_dagster_tests.training.platforms.local.conftest import Ask, ended, wait_for


def _log(here: LocalPlatform, name: str) -> list[str]:
    return here.read_log(name)[0]


def _process(here: LocalPlatform, name: str) -> ProcessId:
    record = here.client.training_record(name)
    assert record is not None
    found = record.state[INTERNAL]["process"]
    return ProcessId(found["pid"], found["began"])


def test_a_job_leaves_the_model_that_is_trained_in_process(here: LocalPlatform, ask: Ask, dataset_folder: Path) -> None:
    assert here.client.create_training_job(**ask("job")) == {
        "TrainingJobArn": "arn:aws:sagemaker:local:000000000000:training-job/job"
    }
    job = ended(here, "job")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Completed", "Completed")
    assert [each["Status"] for each in job["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert job["CreationTime"] <= job["TrainingStartTime"] <= job["TrainingEndTime"]
    assert job["HyperParameters"] == {"algorithm": "linear", "alpha": "1.0", "strategy": "mine", "period": "2023-06-01"}
    figures = {each["MetricName"]: each["Value"] for each in job["FinalMetricDataList"]}
    assert figures["step"] == 1
    assert figures["peak_memory_bytes"] > 2**20
    assert figures["cpu_seconds"] > 0
    with tarfile.open(fileobj=BytesIO(here.fetch(job["ModelArtifacts"]["S3ModelArtifacts"]))) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert files == train_model("mine", "2023-06-01", dataset_folder, "linear", {"alpha": 1.0}, 0).files
    lines, position = here.read_log("job")
    assert [line.split()[0] for line in lines] == ["progress", "model"]
    assert here.read_log("job", position) == ([], position)


def test_without_a_warm_process_a_job_gives_the_same(
    here: LocalPlatform, ask: Ask, dataset_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "launch", lambda folder: False)
    folder = {**ask("cold")["OutputDataConfig"], "CompressionType": "NONE"}
    here.client.create_training_job(**ask("cold", OutputDataConfig=folder))
    artifact = ended(here, "cold")["ModelArtifacts"]["S3ModelArtifacts"]
    files = {uri.rpartition("/")[2]: here.fetch(uri) for uri in here.listed(artifact)}
    assert files == train_model("mine", "2023-06-01", dataset_folder, "linear", {"alpha": 1.0}, 0).files


def test_a_job_is_stopped_and_the_next_one_goes_on(here: LocalPlatform, ask: Ask) -> None:
    own = {"steps": 200, "seconds": 0.05}
    here.client.create_training_job(**ask("first", own))
    wait_for(lambda: len(_log(here, "first")) > 2)
    here.client.stop_training_job(TrainingJobName="first")
    assert here.client.describe_training_job(TrainingJobName="first")["TrainingJobStatus"] in ("Stopping", "InProgress")
    job = ended(here, "first")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    with pytest.raises(ClientError, match="first is in status Stopped"):
        here.client.stop_training_job(TrainingJobName="first")
    # The same checkpoints, and enough steps left to be seen beginning late.
    here.client.create_training_job(**ask("second", own))
    wait_for(lambda: len(_log(here, "second")) > 0)
    assert json.loads(_log(here, "second")[0].removeprefix("progress "))["step"] > 2
    process = _process(here, "second")
    os.kill(process.pid, signal.SIGKILL)
    job = ended(here, "second")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: it was ended by SIGKILL, as by a lack of memory"


def test_a_job_that_may_take_no_longer_is_ended(here: LocalPlatform, ask: Ask) -> None:
    stubborn = ask("job", {"steps": 1, "seconds": 1000}, StoppingCondition={"MaxRuntimeInSeconds": 1})
    here.client.create_training_job(**stubborn)
    job = ended(here, "job")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert not _process(here, "job").alive


def test_a_container_that_fails_gives_its_reason(here: LocalPlatform, ask: Ask, tmp_path: Path) -> None:
    here.client.create_training_job(**ask("job", {"fails": "panics"}))
    absent = ask("absent")
    absent["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = f"file://{tmp_path}/nothing"
    here.client.create_training_job(**absent)
    assert ended(here, "job")["FailureReason"] == (
        "AlgorithmError: training failed with ZeroDivisionError: no number can be divided by nothing\n"
        + ended(here, "job")["FailureReason"].partition("\n")[2]
    )
    assert ended(here, "job")["FailureReason"].endswith("exit code: 1")
    said = ended(here, "absent")["FailureReason"]
    assert said.startswith("ClientError: Data download failed: no file at file:///")


def test_of_several_steps_that_start_one_job_at_once_one_does(here: LocalPlatform, ask: Ask) -> None:
    request = ask("job")

    def begin(_: int) -> str:
        try:
            here.client.create_training_job(**request)
        except ClientError as error:
            return error_code(error)
        return "created"

    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(begin, range(6)))
    assert sorted(said) == ["ResourceInUse"] * 5 + ["created"]
    assert ended(here, "job")["TrainingJobStatus"] == "Completed"


def _begin_and_die(root: Path, request: dict[str, Any]) -> None:
    LocalPlatform(root).client.create_training_job(**request)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_job_outlives_the_process_that_asked_for_it(here: LocalPlatform, ask: Ask) -> None:
    step = multiprocessing.get_context("spawn").Process(
        target=_begin_and_die, args=(here.root, ask("job", {"steps": 20, "seconds": 0.05}))
    )
    step.start()
    step.join(60)
    assert step.exitcode == -signal.SIGKILL
    job = ended(LocalPlatform(here.root), "job")
    assert job["TrainingJobStatus"] == "Completed"
    # Of every figure in its log, the last is the job's.
    figures = {each["MetricName"]: each["Value"] for each in job["FinalMetricDataList"]}
    assert (figures["step"], figures["loss"]) == (20, 0.05)


def test_a_killed_supervisor_takes_its_training_along_and_is_told_of(here: LocalPlatform, ask: Ask) -> None:
    here.client.create_training_job(**ask("job", {"steps": 1000, "seconds": 0.05}))
    wait_for(lambda: _log(here, "job"))
    process = _process(here, "job")
    supervisor = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    job = ended(here, "job")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("InternalServerError: the process that supervised it was killed")
    wait_for(lambda: not process.alive)


def test_what_is_left_of_a_lost_job_is_ended_and_nobody_elses_process_is(here: LocalPlatform, ask: Ask) -> None:
    here.client.create_training_job(**ask("job"))
    ended(here, "job")
    record = here.client.training_record("job")
    assert record is not None
    bystander = os.fork()
    if bystander == 0:
        os.setpgid(0, 0)
        time.sleep(60)
        os._exit(0)
    try:
        # The number of a process that ended was given to another: it must not be signalled.
        stale = record.state | {"TrainingJobStatus": "InProgress"}
        stale[INTERNAL]["process"] = {"pid": bystander, "began": 1.0}
        record.write(stale)
        assert ended(here, "job")["TrainingJobStatus"] == "Failed"
        found = ProcessId.of(bystander)
        assert found is not None
        assert found.alive
        stale[INTERNAL]["process"] = vars(found)
        wait_for(lambda: os.getpgid(bystander) == bystander)
        record.write(stale)
        assert ended(here, "job")["TrainingJobStatus"] == "Failed"
        assert os.waitstatus_to_exitcode(os.waitpid(bystander, 0)[1]) == -signal.SIGKILL
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(bystander, signal.SIGKILL)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"TrainingJobStatus": "InProg'])
def test_a_state_that_cannot_be_read_counts_as_failed(here: LocalPlatform, ask: Ask, content: str) -> None:
    with here.client._kept["training-jobs"].create("job", ask("job"), {}) as record:
        (record.folder / STATE).write_text(content)
    job = ended(here, "job")
    assert job["TrainingJobStatus"] == "Failed"
    assert "state.json" in job["FailureReason"]
    with pytest.raises(ClientError, match="ResourceInUse"):
        here.client.create_training_job(**ask("job"))
    assert here.client.list_training_jobs()["TrainingJobSummaries"] == []


def test_a_disk_that_refuses_the_model_fails_the_job(here: LocalPlatform, ask: Ask) -> None:
    (here.root / "output").mkdir()
    (here.root / "output" / "models").write_text("no folder")
    here.client.create_training_job(**ask("job", CheckpointConfig={"S3Uri": f"file://{here.root}/kept"}))
    assert ended(here, "job")["FailureReason"].startswith("ClientError: Artifact upload failed: ")


def test_the_container_is_given_no_credentials(
    here: LocalPlatform, ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("APCA_API_SECRET_KEY", "secret")
    monkeypatch.setattr(warm, "launch", lambda folder: False)
    request = ask("job", Environment={"ASKED": "for"})
    request["AlgorithmSpecification"] |= {"ContainerEntrypoint": ["env"]}
    here.client.create_training_job(**request)
    ended(here, "job")
    given = dict(line.partition("=")[::2] for line in _log(here, "job"))
    assert "APCA_API_SECRET_KEY" not in given
    assert given["ASKED"] == "for"
    assert (given["TRAINING_JOB_NAME"], given["SM_ML_ROOT"]) == ("job", str(here.root / "training-jobs/job/ml"))
    assert given["TRAINING_JOB_ARN"].endswith(":training-job/job")
