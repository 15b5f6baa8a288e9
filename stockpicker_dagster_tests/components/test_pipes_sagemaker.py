"""Jobs as external processes of a step: what they report becomes results, their log Dagster's, and they end with it."""

import asyncio
import hashlib
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from stockpicker_dagster.components.pipes_sagemaker import PipesSageMakerClient, SageMakerJobs
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.platforms import PlatformFailure, polling
from stockpicker_dagster.training.platforms.errors import client_error
from stockpicker_dagster.training.platforms.local import LocalPlatform

REPORTING = """
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    print("an ordinary line")
    pipes.log.info("a line through Pipes")
    pipes.report_asset_materialization(metadata={"rows": pipes.get_extra("rows")})
import pathlib, os
(pathlib.Path(os.environ["SM_ML_ROOT"]) / "model" / "done").write_text("x")
"""


def _request(place: LocalPlatform, name: str, script: str) -> dict[str, Any]:
    program = place.root / f"{name}.py"
    program.write_text(script)
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": place.image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": [sys.executable],
            "ContainerArguments": [str(program)],
        },
        "RoleArn": place.role,
        "OutputDataConfig": {"S3OutputPath": f"{place.output}/models"},
        "ResourceConfig": place.training_resources,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }


@pytest.fixture
def here(tmp_path: Path) -> LocalPlatform:
    return LocalPlatform(tmp_path / "platform", stop_seconds=3)


def test_what_a_job_reports_is_the_steps_and_the_rest_of_its_log_is_dagsters(here: LocalPlatform) -> None:
    client = PipesSageMakerClient(here)

    @dg.asset
    def table(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        run = client.run(context=context, request=_request(here, "table", REPORTING), extras={"rows": 7})
        return run.get_materialize_result()

    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            # The second step takes up what the job of the first reported: nothing is computed twice.
            done = dg.materialize([table], instance=instance)
            log = [entry.user_message for entry in instance.all_logs(done.run_id)]
            metadata = done.asset_materializations_for_node("table")[0].metadata
            assert metadata["rows"].value == 7
            assert metadata["training_job"].value == "table"
            assert "table: an ordinary line" in log
            assert "a line through Pipes" in log
            assert not any("__dagster_pipes_version" in line for line in log)
    assert len(here.client.list_training_jobs()["TrainingJobSummaries"]) == 1


class _Jobs:
    """Jobs that take three looks each; what was stopped is remembered."""

    name, poll_seconds, longest_poll_seconds = "sagemaker", 60.0, 60.0

    def __init__(self, looks: int = 3, fails: str = "") -> None:
        self.client, self.looks, self.fails = self, looks, fails
        self.seen: dict[str, int] = {}
        self.requests: list[dict[str, Any]] = []
        self.stopped: list[str] = []

    def create_training_job(self, **request: Any) -> None:
        self.seen[request["TrainingJobName"]] = 0
        self.requests.append(request)

    def describe_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:
        if TrainingJobName not in self.seen:
            raise client_error("DescribeTrainingJob", "ValidationException", "Requested resource not found.")
        self.seen[TrainingJobName] += 1
        ended = self.seen[TrainingJobName] > self.looks
        status = ("Failed" if self.fails else "Completed") if ended else "InProgress"
        machine = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1}
        return {"TrainingJobName": TrainingJobName, "TrainingJobStatus": status, "FailureReason": self.fails,
                "ResourceConfig": machine, "BillableTimeInSeconds": 360}  # fmt: skip

    def stop_training_job(self, *, TrainingJobName: str) -> None:
        self.stopped.append(TrainingJobName)

    def read_log(self, job: str, position: str | None = None, kind: str = "training") -> tuple[list[str], str]:
        return ([f"{job} at work"], "1") if position is None else ([], "1")


def _op(body: Any) -> Any:
    @dg.op(out=dg.Out(dg.Nothing))
    def step(context: dg.OpExecutionContext) -> None:
        body(context)

    @dg.job(executor_def=dg.in_process_executor)
    def job() -> None:
        step()

    return job.execute_in_process(raise_on_error=True)


def test_many_jobs_need_the_time_of_one_and_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs, now = _Jobs(), [0.0]
    monkeypatch.setattr(polling, "clock", lambda: now[0])
    monkeypatch.setattr(polling, "pause", lambda seconds: now.__setitem__(0, now[0] + seconds))
    found: dict[str, Any] = {}

    def body(context: dg.OpExecutionContext) -> None:
        requests = {name: {"TrainingJobName": name} for name in ("a", "b", "c", "d")}
        found.update(PipesSageMakerClient(jobs).run_all(context=context, requests=requests))

    _op(body)
    assert now[0] == 180
    assert [request["TrainingJobName"] for request in jobs.requests] == ["a", "b", "c", "d"]
    assert all("DAGSTER_PIPES_CONTEXT" in request["Environment"] for request in jobs.requests)
    assert found["d"].metadata["cost_estimate"].value == 0.0269


def test_a_cancelled_run_stops_every_job_and_a_failed_one_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = _Jobs()

    def cancelled(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(polling, "pause", cancelled)
    requests = {name: {"TrainingJobName": name} for name in "ab"}
    with pytest.raises(KeyboardInterrupt):
        _op(lambda context: PipesSageMakerClient(jobs).run_all(context=context, requests=requests))
    assert jobs.stopped == ["a", "b"]
    monkeypatch.setattr(polling, "pause", lambda seconds: None)
    failing = PipesSageMakerClient(_Jobs(fails="AlgorithmError: no rows"))
    with pytest.raises(PlatformFailure, match="the training x failed: AlgorithmError: no rows"):
        _op(lambda context: failing.run(context=context, request={"TrainingJobName": "x"}))


def test_a_coroutine_waits_without_a_thread_and_a_context_that_is_too_long_is_refused() -> None:
    jobs = _Jobs()
    jobs.poll_seconds = 0.001
    done: list[Any] = []

    def body(context: dg.OpExecutionContext) -> None:
        client = PipesSageMakerClient(jobs)
        done.append(asyncio.run(client.run_async(context=context, request={"TrainingJobName": "a"})))
        noise = "".join(hashlib.sha256(str(number).encode()).hexdigest() for number in range(40))
        with pytest.raises(
            InvalidInput, match=r"DAGSTER_PIPES_CONTEXT of the training job has .* allowed: at most 512"
        ):
            client.run(context=context, request={"TrainingJobName": "b"}, extras={"noise": noise})

    _op(body)
    assert done[0].metadata["training_job"].value == "a"
    assert len(jobs.requests) == 1


def test_any_accounts_jobs_can_be_run() -> None:
    class Logs:
        exceptions = type("Exceptions", (), {"ResourceNotFoundException": KeyError})

        def describe_log_streams(self, *, logGroupName: str, logStreamNamePrefix: str) -> dict[str, Any]:
            assert (logGroupName, logStreamNamePrefix) == ("/aws/sagemaker/ProcessingJobs", "job/")
            return {"logStreams": [{"logStreamName": "job/algo-1"}]}

        def get_log_events(self, **named: Any) -> dict[str, Any]:
            events = [] if "nextToken" in named else [{"message": "a line"}]
            return {"events": events, "nextForwardToken": "t"}

    jobs = SageMakerJobs(object(), Logs())
    lines, position = jobs.read_log("job", None, "processing")
    assert lines == ["a line"]
    assert jobs.read_log("job", position, "processing")[0] == []
