"""The reaper's schedule: it runs when something is left, says why when not, and deletes what is old and ours."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from stockpicker_dagster.defs.reaper import definitions as reaper
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.training.platforms import platforms_of_deployment
from stockpicker_dagster.training.platforms.scoring_requests import PURPOSE


class _Later(datetime):
    @classmethod
    def now(cls, tz=None) -> datetime:  # type: ignore[no-untyped-def, override]
        return datetime.now(UTC) + timedelta(hours=3)


def _tick() -> dg.RunRequest | dg.SkipReason:
    with dg.build_schedule_context() as context:
        asked = reaper.reaper(context)
    assert isinstance(asked, dg.RunRequest | dg.SkipReason)
    return asked


def test_it_runs_only_when_something_old_is_left_and_deletes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    [place] = platforms_of_deployment()
    tags = [{"Key": key, "Value": value} for key, value in {**place.marks, **PURPOSE}.items()]
    for name, own in (("left", tags), ("theirs", [])):
        container = {"Image": place.image, "ModelDataUrl": f"{place.output}/model.tar.gz"}
        place.client.create_model(ModelName=name, PrimaryContainer=container, Tags=own)
    assert _tick().skip_message == "nothing is left running"  # type: ignore[union-attr]
    monkeypatch.setattr(reaper, "datetime", _Later)
    assert isinstance(_tick(), dg.RunRequest)
    job = reaper.definitions().get_job_def("delete_left_deployments")
    assert job.execute_in_process().success
    assert [each["ModelName"] for each in place.client.list_models()["Models"]] == ["theirs"]
    assert isinstance(_tick(), dg.SkipReason)


def test_an_account_that_cannot_be_reached_is_a_reason_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable() -> None:
        raise InvalidInput("no AWS region is named")

    monkeypatch.setattr(reaper, "platforms_of_deployment", unreachable)
    assert _tick().skip_message == "it could not be seen what is left: no AWS region is named"  # type: ignore[union-attr]
    [schedule] = reaper.definitions().schedules or []
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING  # type: ignore[union-attr]
