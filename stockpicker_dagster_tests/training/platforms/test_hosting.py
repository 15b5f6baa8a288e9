"""Endpoints asked and deleted: what may go well is asked again, what is gone counts as deleted."""

from pathlib import Path
from typing import Any, cast

import pytest

from stockpicker_dagster.training.platforms import Platform, PlatformFailure
from stockpicker_dagster.training.platforms.custom_models import ModelFolder
from stockpicker_dagster.training.platforms.errors import client_error
from stockpicker_dagster.training.platforms.hosting import (
    create_endpoint,
    create_endpoint_config,
    create_model,
    delete_endpoint,
    in_service,
    invoke_in_batches,
)
from stockpicker_dagster.training.platforms.polling import wait_for
from stockpicker_dagster.training.platforms.scoring_requests import Scoring
from stockpicker_dagster_tests.aws.fake_sagemaker import FakeSageMaker
from stockpicker_dagster_tests.training.platforms.fault_runs import FakePlatform, FaultRuns, time_of
from stockpicker_dagster_tests.training.platforms.served_model import ROWS, stored_model
from stockpicker_dagster_tests.training.small_strategy import FEATURES

COLUMNS = ROWS.select("symbol", "date", *FEATURES)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> FaultRuns:
    return FaultRuns(*stored_model(tmp_path_factory.mktemp("model")))


class Deployed:
    """An endpoint that is in service, on a service in memory; what is asked of it is counted."""

    def __init__(self, runs: FaultRuns) -> None:
        self.service = FakeSageMaker(runs.loaded, {})
        self.place = cast(Platform, FakePlatform(self.service))
        folder = ModelFolder(self.place, "research", runs.model.model_id)
        self.scoring = Scoring(self.place, runs.model, folder, f"{folder.location}/m.tar.gz", "endpoint", "0" * 64)
        self.name, self.bodies = self.scoring.name(), list[bytes]()
        create_model(self.place, self.scoring.model_request())
        create_endpoint_config(self.place, self.scoring.endpoint_config_request())
        create_endpoint(self.place, self.scoring.endpoint_request())
        with time_of(self.service):
            wait_for(in_service(self.place, self.name))
        answer = self.service.invoke_endpoint

        def counted(**request: Any) -> Any:
            self.bodies.append(request["Body"])
            return answer(**request)

        self.place.runtime = cast(Any, type("Runtime", (), {"invoke_endpoint": staticmethod(counted)}))

    def ask(self, most: int = 10**6) -> Any:
        with time_of(self.service):
            return wait_for(invoke_in_batches(self.place, self.name, COLUMNS, FEATURES, most))


@pytest.fixture
def deployed(runs: FaultRuns) -> Deployed:
    return Deployed(runs)


def test_no_body_is_larger_than_allowed_and_every_row_is_in_one(deployed: Deployed) -> None:
    answers = deployed.ask(most=200)
    assert answers.select("symbol", "date").equals(COLUMNS.select("symbol", "date"))
    assert max(map(len, deployed.bodies)) <= 200
    assert min(len(body.splitlines()) for body in deployed.bodies) >= 2
    assert sum(len(body.splitlines()) - 1 for body in deployed.bodies) == COLUMNS.height


@pytest.mark.parametrize(
    ("code", "more", "asked"),
    [
        ("ModelError", {"OriginalStatusCode": 400}, 1),
        ("ModelError", {"OriginalStatusCode": 503}, 6),
        ("ModelNotReadyException", {}, 6),
        ("ThrottlingException", {}, 6),
        ("AccessDeniedException", {}, 1),
    ],
)
def test_only_what_may_go_well_later_is_asked_again(
    code: str, more: dict[str, Any], asked: int, deployed: Deployed
) -> None:
    def refused(operation: str) -> None:
        raise client_error("InvokeEndpoint", code, "the test says so", **more)

    deployed.service.before = refused
    with pytest.raises(PlatformFailure, match=f"the endpoint {deployed.name} was asked, and it was refused: {code}"):
        deployed.ask()
    assert len(deployed.bodies) == asked


def test_an_answer_that_is_no_table_is_refused(deployed: Deployed) -> None:
    deployed.service.spoil = lambda content: content.replace(b"score", b"other")
    with pytest.raises(PlatformFailure, match="answered what cannot be read"):
        deployed.ask()


def test_a_deletion_is_repeated_until_the_endpoint_is_gone_or_time_is_up(deployed: Deployed) -> None:
    refusals = ["ThrottlingException", "InternalFailure", "ThrottlingException"]

    def refused(operation: str) -> None:
        if operation == "delete_endpoint" and refusals:
            raise client_error(operation, refusals.pop(), "the test says so")

    deployed.service.before = refused
    with time_of(deployed.service):
        assert delete_endpoint(deployed.place, deployed.name)
        assert delete_endpoint(deployed.place, deployed.name, looks=3)  # gone already
        create_endpoint(deployed.place, deployed.scoring.endpoint_request())
        began = deployed.service.seconds
        assert not delete_endpoint(deployed.place, deployed.name, seconds=60)  # it is being created
        assert deployed.service.seconds - began < 200


def test_an_endpoint_that_never_was_is_said_to_be_not_there(runs: FaultRuns, tmp_path: Path) -> None:
    service = FakeSageMaker(runs.loaded, {})
    with time_of(service), pytest.raises(PlatformFailure, match="is still not there after 60 s"):
        wait_for(in_service(cast(Platform, FakePlatform(service)), "none", 60))
