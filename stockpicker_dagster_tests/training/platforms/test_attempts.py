"""A piece of work becomes one job: never two because an answer was lost, and none that nobody watches."""

from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.platforms import PlatformFailure
from stockpicker_dagster.training.platforms.attempt_memory import Memory
from stockpicker_dagster.training.platforms.attempts import Work, outcome
from stockpicker_dagster.training.platforms.errors import client_error
from stockpicker_dagster.training.platforms.jobs import TRANSFORM
from stockpicker_dagster.training.platforms.polling import Waiting, wait_for
from stockpicker_dagster_tests.aws.fake_sagemaker import FakeSageMaker
from stockpicker_dagster_tests.training.platforms.fault_runs import FakePlatform, time_of

LOST = ConnectionClosedError(endpoint_url="https://sagemaker")


class _Service(FakeSageMaker):
    """Jobs that write nothing."""

    def __init__(self) -> None:
        super().__init__(None, {})  # type: ignore[arg-type]
        self.things["model"]["m"] = {}
        self.created = 0

    def _create(self, kind: str, request: dict[str, Any]) -> dict[str, Any]:
        self.created += 1
        return super()._create(kind, request)

    def _write_output(self, thing: dict[str, Any]) -> None:
        pass


class _Place(FakePlatform):
    def __init__(self, service: _Service) -> None:
        super().__init__(service)
        self.client = service


def _used_up_once(collected: set[str], memory: Memory | None) -> Work[str]:
    """Work whose outcome can be taken once, as where what a job left is removed after it."""

    def collect(described: dict[str, Any]) -> str:
        name = str(described["TransformJobName"])
        if name in collected:
            raise PlatformFailure(f"what {name} left is not there any more")
        collected.add(name)
        return name

    return replace(_work(), collect=collect, memory=memory)


def test_work_can_be_done_again_any_number_of_times_without_asking_about_every_time_before() -> None:
    service, collected = _Service(), set[str]()
    place, asked = _Place(service), list[str]()
    service.before = asked.append
    for time in range(1, 131):
        asked.clear()
        with time_of(service):
            done, _ = wait_for(outcome(place, _used_up_once(collected, Memory(place, "job-1"))))
        assert done == f"job-{time}"
    assert asked.count("describe_transform_job") < 15
    # A step that was killed finds the job that it began, be it remembered or not.
    killed: list[Waiting[Any]] = []
    for kept in (130, 129, 60):
        service.storage["s3://bucket/jobs/attempts/job-1"] = f"{kept}".encode()
        with time_of(service):
            work = outcome(place, _used_up_once(collected, Memory(place, "job-1")))
            next(work)
            killed.append(work)
            created = service.created
            done, _ = wait_for(outcome(place, _used_up_once(collected, Memory(place, "job-1"))))
        assert (service.created, done) == (created, f"job-{created}")


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, LOST])
def test_what_interrupts_the_remembering_of_an_attempt_leaves_no_job_running(interruption: Any) -> None:
    service, collected = _Service(), set[str]()
    place = _Place(service)

    def interrupt(operation: str) -> None:
        if operation == "store":
            raise interruption

    with time_of(service):
        wait_for(outcome(place, _used_up_once(collected, Memory(place, "job-1"))))
        service.before = interrupt
        with pytest.raises((KeyboardInterrupt, ConnectionClosedError)):
            wait_for(outcome(place, _used_up_once(collected, Memory(place, "job-1"))))
        service.pause(60)
        states = {
            name: service.describe_transform_job(TransformJobName=name)["TransformJobStatus"]
            for name in ("job-1", "job-2")
        }
    assert states == {"job-1": "Completed", "job-2": "Stopped"}


@pytest.mark.parametrize("content", [b"", b"many", b"-3", b"2"])
def test_a_memory_that_is_wrong_costs_questions_and_nothing_else(content: bytes) -> None:
    service, collected = _Service(), {"job-1", "job-2", "job-3"}
    place = _Place(service)
    with time_of(service):
        for number in (1, 2, 3):
            wait_for(outcome(place, replace(_work(), name=lambda attempt, number=number: f"job-{number}", request=lambda
                attempt, number=number: {"TransformJobName": f"job-{number}", "ModelName": "m"})))  # fmt: skip
        service.storage["s3://bucket/jobs/attempts/job-1"] = content
        done, _ = wait_for(outcome(place, _used_up_once(collected, Memory(place, "job-1"))))
    assert done == "job-4"
    assert service.storage["s3://bucket/jobs/attempts/job-1"] == b"4"


def _work(max_seconds: float | None = None) -> Work[str]:
    return Work(
        TRANSFORM,
        lambda attempt: f"job-{attempt}",
        lambda attempt: {"TransformJobName": f"job-{attempt}", "ModelName": "m"},
        lambda described: str(described["TransformJobName"]),
        max_seconds,
    )


def _done(service: _Service, place: FakePlatform | None = None) -> str:
    with time_of(service):
        work: Waiting[Any] = outcome(place or _Place(service), _work())
        return str(wait_for(work)[0])


def test_a_lost_answer_does_not_start_a_second_job() -> None:
    service, lost = _Service(), [LOST]

    def lose(operation: str) -> None:
        if operation == "create_transform_job" and lost:
            raise lost.pop()

    service.after = lose
    assert _done(service) == "job-1"
    assert service.created == 1


def test_an_outage_while_a_job_runs_is_waited_out_and_a_long_one_stops_it() -> None:
    service = _Service()
    service.job_seconds = 300

    def out(operation: str) -> None:
        if operation == "describe_transform_job" and 60 < service.seconds < 400:
            raise client_error(operation, "ThrottlingException", "Rate exceeded")

    service.before = out
    assert _done(service) == "job-1"
    for_good = _Service()
    for_good.job_seconds = 1e6

    def gone(operation: str) -> None:
        if operation == "describe_transform_job" and for_good.seconds > 60:
            raise client_error(operation, "ThrottlingException", "Rate exceeded")

    for_good.before = gone
    with pytest.raises(
        PlatformFailure, match=r"was looked at, and it was refused: ThrottlingException.*in a few minutes"
    ):
        _done(for_good)
    assert for_good.things["transform_job"]["job-1"]["stopped"] > 600


def test_a_log_that_cannot_be_read_does_not_end_the_job() -> None:
    service = _Service()
    place = _Place(service)

    def unreadable(*_: Any, **__: Any) -> Any:
        raise InvalidInput("the log cannot be read")

    place.read_log = unreadable  # type: ignore[method-assign]
    assert _done(service, place) == "job-1"


def test_a_job_of_an_earlier_step_is_followed_and_a_failed_one_is_followed_by_another() -> None:
    service = _Service()
    place = _Place(service)
    service.create_transform_job(TransformJobName="job-1", ModelName="m")
    assert _done(service, place) == "job-1"
    assert service.created == 1
    service.things["transform_job"]["job-1"]["stopped"] = -100.0
    assert _done(service, place) == "job-2"
