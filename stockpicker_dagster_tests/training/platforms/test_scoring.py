"""Whatever goes wrong while rows are scored: a clear error or the model's very scores, and nothing left that bills."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stockpicker_dagster.training.platforms import Platform, PlatformFailure, scoring
from stockpicker_dagster.training.platforms.errors import client_error
from stockpicker_dagster.training.platforms.local import LocalPlatform
from stockpicker_dagster.training.platforms.polling import wait_for
from stockpicker_dagster.training.platforms.reaper import OLD, left_over, reap
from stockpicker_dagster.training.platforms.scoring import infer
from stockpicker_dagster_tests.aws.fake_sagemaker import FakeSageMaker
from stockpicker_dagster_tests.training.platforms import fault_runs
from stockpicker_dagster_tests.training.platforms.fault_runs import FakePlatform, FaultRuns, time_of
from stockpicker_dagster_tests.training.platforms.served_model import ROWS, same, stored_model

RUNS = 60


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> FaultRuns:
    return FaultRuns(*stored_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def service(runs: FaultRuns) -> FakeSageMaker:
    return FakeSageMaker(runs.loaded, {})


def _score(runs: FaultRuns, service: FakeSageMaker, how: str) -> scoring.Inferred:
    with time_of(service):
        return wait_for(infer(FakePlatform(service), how, "research", runs.model, runs.files, ROWS))  # type: ignore[arg-type]


def test_no_fault_leaves_an_endpoint_or_gives_other_scores(runs: FaultRuns) -> None:
    ends: Counter[str] = Counter()
    reaped = 0
    for seed in range(RUNS):
        outcome = runs.run(seed)
        assert outcome.broken == (), f"seed {seed}"
        ends[outcome.ended] += 1
        reaped += outcome.reaped
    assert min(ends[each] for each in ("scored", "refused", "cancelled", "killed")) >= 2
    assert reaped > 0


def test_the_runs_would_notice_a_leak(runs: FaultRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(fault_runs, "reap", lambda *_: [])
        assert any("leaked" in str(runs.run(seed).broken) for seed in range(RUNS))
    monkeypatch.setattr(scoring, "delete_deployment", lambda *_, **__: [])
    assert any("left running" in str(runs.run(seed).broken) for seed in range(RUNS))


def test_an_endpoint_that_stays_in_creation_is_given_up_and_the_reaper_deletes_it(
    runs: FaultRuns, service: FakeSageMaker
) -> None:
    service.creation_seconds = 3_600
    with pytest.raises(
        PlatformFailure, match=r"is still Creating after 1200 s, and is deleted; run it again, or score"
    ):
        _score(runs, service, "endpoint")
    assert len(service.left()) == 2  # the configuration is kept by its endpoint, which cannot be deleted yet
    platform = FakePlatform(service)
    with time_of(service):
        service.pause(3 * 3600)
        assert [gone for _, gone in reap(platform, service.now)] == [True, True]
    assert service.left() == []


@pytest.mark.parametrize(
    ("ends", "said", "jobs"),
    [
        (("Failed", "CapacityError: Unable to provision"), "failed: CapacityError: Unable to provision", 3),
        (("Failed", "ClientError: the rows cannot be read"), "failed: ClientError: the rows cannot be read", 1),
        (("Stopped", ""), "was stopped, as were those before it", 3),
    ],
)
def test_a_transform_that_fails_says_why(
    ends: tuple[str, str], said: str, jobs: int, runs: FaultRuns, service: FakeSageMaker
) -> None:
    service.job_ends = ends
    with pytest.raises(PlatformFailure, match=said):
        _score(runs, service, "transform")
    assert len(service.things["transform_job"]) == jobs
    assert service.left() == []


def test_a_transform_that_never_ends_is_stopped(runs: FaultRuns, service: FakeSageMaker) -> None:
    service.job_seconds = 1e9
    with pytest.raises(PlatformFailure, match="has not ended after 5400 s, and is stopped; score fewer days at once"):
        _score(runs, service, "transform")
    service.pause(60)
    assert service.left() == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("ThrottlingException", "run again in a few minutes"),
        ("ExpiredTokenException", "the credentials have expired: sign in again"),
        ("ResourceLimitExceeded", "quota does not allow this job"),
        ("KMSAccessDeniedException", "allow kms:Decrypt"),
        ("AccessDeniedException", "attach the policies"),
    ],
)
@pytest.mark.parametrize("how", ["transform", "endpoint"])
def test_what_the_service_refuses_is_said_with_the_way_out(
    how: str, code: str, said: str, runs: FaultRuns, service: FakeSageMaker
) -> None:
    def refused(operation: str) -> None:
        if operation in ("create_transform_job", "create_endpoint"):
            raise client_error(operation, code, "the test says so")

    service.before = refused
    with pytest.raises(PlatformFailure, match=said):
        _score(runs, service, how)
    assert service.left() == []


def test_a_step_that_was_killed_follows_the_transform_that_it_began(runs: FaultRuns, service: FakeSageMaker) -> None:
    with time_of(service):
        work = infer(FakePlatform(service), "transform", "research", runs.model, runs.files, ROWS)
        for _ in range(3):
            service.pause(next(work))
        assert len(service.left()) == 2
        # The generator is dropped as a killed process drops it: nothing of it runs any more.
        dropped, service.before = service.before, _raise_exit
        with pytest.raises(GeneratorExit):
            work.throw(GeneratorExit)
        service.before = dropped
    assert same(_score(runs, service, "transform").scored, runs.expected)
    assert len(service.things["transform_job"]) == 1


def _raise_exit(operation: str) -> None:
    raise GeneratorExit


def test_what_is_not_ours_is_not_looked_at_twice(runs: FaultRuns, service: FakeSageMaker) -> None:
    runs._somebody_elses(service)
    platform = FakePlatform(service)

    def denied(operation: str) -> None:
        if operation == "list_tags":
            raise client_error(operation, "AccessDeniedException", "it carries other tags")

    service.before = denied
    service.pause(1e6)
    assert left_over(platform, service.now) == []
    service.before = lambda operation: (_ for _ in ()).throw(client_error(operation, "ExpiredTokenException", "no"))
    with pytest.raises(PlatformFailure, match="the credentials have expired"):
        left_over(platform, service.now)


@pytest.fixture(autouse=True)
def _quietly() -> None:
    logging.getLogger("stockpicker_dagster").setLevel(logging.ERROR)


@pytest.mark.long
@pytest.mark.parametrize(("ending", "left"), [(signal.SIGINT, 0), (signal.SIGKILL, 3)])
def test_an_interrupted_process_deletes_and_what_a_killed_one_left_is_reaped(
    ending: signal.Signals, left: int, tmp_path: Path
) -> None:
    here = LocalPlatform(tmp_path / "platform", stop_seconds=3)
    step = subprocess.Popen([sys.executable, "-m", __name__, str(tmp_path)], env=os.environ)
    until = time.monotonic() + 120
    while not (tmp_path / "asked").exists():
        assert time.monotonic() < until
        assert step.poll() is None
        time.sleep(0.05)
    [endpoint] = here.client.list_endpoints()["Endpoints"]
    assert endpoint["EndpointStatus"] == "InService"
    step.send_signal(ending)
    step.wait(120)
    later = datetime.now(UTC) + OLD + timedelta(minutes=1)
    assert len(left_over(cast(Platform, here), later)) == left
    assert all(gone for _, gone in reap(cast(Platform, here), later))
    lists = (here.client.list_endpoints, here.client.list_endpoint_configs, here.client.list_models)
    assert [next(iter(answer().values())) for answer in lists] == [[], [], []]


def _ask_for_ever(folder: Path) -> None:
    """A step that has deployed its model and waits for its answer."""
    here = LocalPlatform(folder / "platform", stop_seconds=3)

    def invoke(**request: Any) -> Any:
        (folder / "asked").touch()
        time.sleep(600)

    here.runtime = SimpleNamespace(invoke_endpoint=invoke)  # type: ignore[assignment]
    wait_for(infer(cast(Platform, here), "endpoint", "research", *stored_model(folder), ROWS))


if __name__ == "__main__":
    _ask_for_ever(Path(sys.argv[1]))
