"""A training that is wanted becomes one job: followed, found again, stopped, tried again, never just believed."""

import io
import os
import signal
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from stockpicker_dagster.research.algorithms import Progress
from stockpicker_dagster.training.container.settings import Settings
from stockpicker_dagster.training.models import train_model
from stockpicker_dagster.training.platforms import PlatformFailure
from stockpicker_dagster.training.platforms.following import _collect, train_on
from stockpicker_dagster.training.platforms.local import LocalPlatform
from stockpicker_dagster.training.platforms.local.locations import path_of
from stockpicker_dagster.training.platforms.local.records import INTERNAL
from stockpicker_dagster.training.platforms.requests import TrainingJob
from stockpicker_dagster_tests.training.platforms.local.conftest import SLOW

LINEAR = Settings("linear", {"alpha": 1.0}, 0, "mine", "2023-06-01")


class _Slowly(LocalPlatform):
    """A platform whose image knows the slow algorithm."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, stop_seconds=3)
        create = self.client.create_training_job

        def with_slow(**request: Any) -> Any:
            request["AlgorithmSpecification"] |= {"ContainerEntrypoint": SLOW, "ContainerArguments": ["train"]}
            return create(**request)

        self.client.create_training_job = with_slow  # type: ignore[method-assign]


@pytest.fixture
def here(tmp_path: Path) -> LocalPlatform:
    return LocalPlatform(tmp_path / "platform")


@pytest.fixture
def slowly(tmp_path: Path) -> _Slowly:
    return _Slowly(tmp_path / "platform")


def _slow(dataset: Path, **own: Any) -> TrainingJob:
    return TrainingJob(Settings("slow", own, 0, "mine", "2023-06-01"), dataset)


def _names(here: LocalPlatform) -> list[str]:
    jobs = here.client.list_training_jobs(SortOrder="Ascending")["TrainingJobSummaries"]
    return [each["TrainingJobName"] for each in jobs]


def test_the_model_is_the_one_trained_in_process_and_is_trained_once(here: LocalPlatform, dataset_folder: Path) -> None:
    job = TrainingJob(LINEAR, dataset_folder)
    heard: list[Progress] = []
    trained = train_on(here, job, heard.append)
    assert trained.bundle == train_model("mine", "2023-06-01", dataset_folder, "linear", {"alpha": 1.0}, 0)
    assert [(progress.step, progress.of) for progress in heard] == [(1, 1)]
    assert trained.used["peak_memory_bytes"] > 0
    assert train_on(here, job).bundle == trained.bundle
    assert _names(here) == [job.name(1)]
    # What cannot be read is not believed: the model is trained again under another name.
    path_of(trained.job["ModelArtifacts"]["S3ModelArtifacts"]).write_bytes(b"cut off")
    said: list[str] = []
    assert train_on(here, job, say=said.append).bundle == trained.bundle
    assert _names(here) == [job.name(1), job.name(2)]
    assert "cannot be used (the model's archive cannot be read" in said[0]


def test_progress_of_every_step_arrives_and_an_interruption_stops_the_job(
    slowly: _Slowly, dataset_folder: Path
) -> None:
    job = _slow(dataset_folder, steps=60, seconds=0.05)
    heard: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        heard.append(progress)
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_on(slowly, job, interrupt)
    assert [progress.step for progress in heard] == [1, 2, 3]
    assert heard[0].loss == 1.0
    assert heard[0].validation_rank_ic != heard[0].validation_rank_ic
    again: list[Progress] = []
    train_on(slowly, job, again.append)
    # The first job is followed to its end, with its remaining steps; the second goes on from there.
    steps = [progress.step for progress in again]
    assert steps[-1] == 60
    assert slowly.client.describe_training_job(TrainingJobName=job.name(1))["TrainingJobStatus"] == "Stopped"
    assert steps.count(60) == 1
    resumed = slowly.read_log(job.name(2))[0][0]
    assert '"step": 1,' not in resumed
    assert slowly.listed(f"{slowly.output}/checkpoints") == []


def test_a_second_step_follows_the_job_of_the_first(slowly: _Slowly, dataset_folder: Path) -> None:
    job = _slow(dataset_folder, steps=20, seconds=0.05)
    results: list[Any] = []
    steps = [threading.Thread(target=lambda: results.append(train_on(slowly, job).bundle)) for _ in range(3)]
    for step in steps:
        step.start()
    for step in steps:
        step.join(90)
    assert len(results) == 3
    assert results[0] == results[1] == results[2]
    assert _names(slowly) == [job.name(1)]


def test_a_job_whose_supervisor_is_killed_is_tried_again(slowly: _Slowly, dataset_folder: Path) -> None:
    job = _slow(dataset_folder, steps=30, seconds=0.05)

    def kill(progress: Progress) -> None:
        if progress.step == 3 and len(_names(slowly)) == 1:
            record = slowly.client.training_record(job.name(1))
            assert record is not None
            pid = record.state[INTERNAL]["process"]["pid"]
            os.kill(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)

    said: list[str] = []
    train_on(slowly, job, kill, said.append)
    assert _names(slowly) == [job.name(1), job.name(2)]
    assert "InternalServerError: the process that supervised it was killed" in said[0]


def test_a_training_that_fails_raises_its_reason_at_once(slowly: _Slowly, dataset_folder: Path) -> None:
    with pytest.raises(PlatformFailure, match=r"failed: AlgorithmError: training failed with ZeroDivisionError"):
        train_on(slowly, _slow(dataset_folder, fails="panics"))
    assert len(_names(slowly)) == 1
    with pytest.raises(PlatformFailure, match="ended by SIGKILL, as by a lack of memory"):
        train_on(slowly, _slow(dataset_folder, fails="is killed"))
    job = TrainingJob(_slow(dataset_folder, steps=1, seconds=1000.0).settings, dataset_folder, 1)
    with pytest.raises(
        PlatformFailure, match=r"was ended after the most it may take; allow more than 1 s \(training: max_hours"
    ):
        train_on(slowly, job)
    refused = TrainingJob(LINEAR, dataset_folder, 0)
    with pytest.raises(PlatformFailure, match=r"the platform local refused: .*MaxRuntimeInSeconds"):
        train_on(slowly, refused)


@pytest.mark.parametrize("name", ["../outside", "folder/file", ".hidden", "link"])
def test_an_archive_with_anything_but_plain_files_is_refused(here: LocalPlatform, name: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        if name == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry, io.BytesIO(b""))
    place = here.root / "output"
    place.mkdir()
    (place / "model.tar.gz").write_bytes(packed.getvalue())
    described = {"ModelArtifacts": {"S3ModelArtifacts": f"{here.output}/model.tar.gz"}}
    with pytest.raises(PlatformFailure, match="which is no plain file"):
        _collect(here, described)
