"""Gathering a tear sheet from stored days: what it holds, what it logs, and what it refuses."""

from collections.abc import Iterator
from datetime import date

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.evaluation.trials import logged_trials
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.tear_sheet.page import as_html
from stockpicker_dagster.tear_sheet.sheet import tear_sheet
from stockpicker_dagster_tests.evaluation.stored_strategies import SERVED, served_form
from stockpicker_dagster_tests.tear_sheet.invented import store_strategy

FORM = served_form()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("STOCKPICKER_HOME", str(tmp_path_factory.mktemp("home")))
        place = Deployment()
        store_strategy(place, "momentum", FORM)
        yield place


def test_a_sheet_holds_the_stored_days_their_verdict_and_their_caveats(deployment: Deployment) -> None:
    sheet = tear_sheet("momentum", FORM, deployment)
    assert sheet.days["date"].to_list() == SERVED
    assert sheet.judgement.verdict is not None
    assert sheet.own_offset == 4
    assert any("simulated" in caveat for caveat in sheet.caveats)
    assert sheet.signal is not None
    assert sheet.delistings is None
    settings = dict(sheet.settings)
    assert settings["strategy's digest"] == FORM.trial_digest
    assert settings["models"] == "1, the last being m1"
    assert FORM.trial_digest in as_html(sheet)


def test_looking_at_it_is_a_trial_and_looking_again_is_none(deployment: Deployment) -> None:
    for _ in range(2):
        sheet = tear_sheet("momentum", FORM, deployment)
    logged = [trial for trial in logged_trials(deployment.database) if trial.first_session == SERVED[0]]
    assert [trial.strategy for trial in logged] == ["momentum"]
    assert sheet.judgement.verdict is not None
    assert sheet.judgement.verdict.trials >= 1


def test_a_span_shows_its_own_days_only(deployment: Deployment) -> None:
    sheet = tear_sheet("momentum", FORM, deployment, SERVED[20], SERVED[80])
    assert sheet.days["date"].to_list() == SERVED[20:81]
    assert sheet.signal is not None
    assert sheet.signal.sessions == tuple(SERVED[20:81])


def test_without_stored_days_the_way_to_make_them_is_named(deployment: Deployment) -> None:
    with pytest.raises(InvalidInput, match="`stockpicker run other` makes one"):
        tear_sheet("other", FORM, deployment)
    with pytest.raises(InvalidInput, match="no session from 2021"):
        tear_sheet("momentum", FORM, deployment, date(2021, 1, 4), date(2021, 2, 1))
