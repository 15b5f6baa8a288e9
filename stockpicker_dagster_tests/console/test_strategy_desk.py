"""Strategies written from the console: what fits is in place as a whole, what does not leaves everything as it was."""

import html
from pathlib import Path

import pytest

from stockpicker_dagster.strategy_form import load
from stockpicker_dagster.strategy_form.authorship import author_of
from stockpicker_dagster_tests.console.site import STRATEGY, Site

FIELDS = {
    "owner": "research",
    "universe.name": "simulated",
    "prices.source": "simulated",
    "prices.start": "2020-01-02",
    "prices.stocks": "12",
    "periods.train_years": "1",
    "periods.validation_years": "1",
    "periods.retrain": "quarterly",
    "trading.account": "mine",
}


@pytest.fixture(autouse=True)
def _home(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(site.folder))


def _file(site: Site, name: str = "mine") -> Path:
    return site.folder / "strategies" / name / "defs.yaml"


def _send(site: Site, person: str = "rob", path: str = "/strategies/new", **fields: str):
    return site.post(person, path, {**FIELDS, "name": "mine", "step": "write", **fields})


def test_a_strategy_is_shown_before_it_is_written(site: Site) -> None:
    answer = _send(site, step="preview")
    assert answer.status_code == 200
    assert "stockpicker_dagster.components.StockPickerStrategy" in answer.text
    assert not _file(site).parent.exists()


def test_what_is_written_loads_and_has_its_author(site: Site) -> None:
    assert _send(site).headers["location"] == "/strategies/mine"
    form = load(_file(site))
    assert (form.trading.account, form.periods.train_years) == ("mine", 1)
    assert author_of(_file(site)) == "rob"
    assert "mine" in site.browser("vera").get("/strategies").text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "Mine"}, "cannot name a strategy"),
        ({"name": STRATEGY}, "already"),
        ({"name": "../../mine"}, "cannot name a strategy"),
        ({"periods.train_years": "0"}, "greater than or equal to 1"),
        ({"description": "{{ 7*7 }}"}, "is not allowed"),
        ({"prices.stocks": "13"}, "different settings"),
        ({"universe.file": "/etc/passwd"}, "outside the state folder"),
    ],
)
def test_what_does_not_fit_is_told_and_changes_nothing(fields: dict[str, str], said: str, site: Site) -> None:
    before = sorted(path for path in site.folder.rglob("*") if "sqlite" not in path.name)
    answer = _send(site, **fields)
    assert answer.status_code == 400
    assert said in html.unescape(answer.text)
    assert sorted(path for path in site.folder.rglob("*") if "sqlite" not in path.name) == before


def test_what_was_filled_in_is_still_there_after_a_mistake(site: Site) -> None:
    page = _send(site, owner="a team of ours", description="kept").text
    assert "a team of ours" in page
    assert "kept" in page


def test_an_edit_replaces_the_file_and_a_broken_one_does_not(site: Site) -> None:
    file = _file(site, STRATEGY)
    before = file.read_bytes()
    bad = {**FIELDS, "label.horizon_days": "0"}
    assert site.post("rob", f"/strategies/{STRATEGY}", {**bad, "step": "write"}).status_code == 400
    assert file.read_bytes() == before
    good = {**FIELDS, "label.horizon_days": "10", "step": "write"}
    assert site.post("rob", f"/strategies/{STRATEGY}", good).status_code == 303
    assert load(file).label.horizon_days == 10


def test_a_viewer_writes_nothing(site: Site) -> None:
    assert _send(site, person="vera").status_code == 403
    assert not _file(site).parent.exists()


def test_an_unknown_field_is_not_written(site: Site) -> None:
    assert _send(site, **{"evil": "x", "prices.evil": "x", "type": "os.system"}).status_code == 303
    assert "evil" not in _file(site).read_text()
    assert "os.system" not in _file(site).read_text()
