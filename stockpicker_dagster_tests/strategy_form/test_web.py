"""The form on a page: every field of the schema is there, and what is sent back is what a file would say."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpicker_dagster.runs import STRATEGIES
from stockpicker_dagster.strategy_form import StrategyForm, load
from stockpicker_dagster.strategy_form.web import (
    TEMPLATE_MARKS,
    Mistakes,
    as_yaml,
    attributes_from,
    checked,
    texts_of,
    web_fields,
)

SMALLEST = {
    "owner": "research",
    "universe.name": "simulated",
    "prices.source": "simulated",
    "periods.train_years": "2",
    "periods.validation_years": "1",
    "periods.retrain": "quarterly",
}


def _refused(texts: dict[str, str]) -> dict[str, str]:
    with pytest.raises(Mistakes) as refusal:
        checked("mine", attributes_from({**SMALLEST, **texts}))
    return refusal.value.by_place


def test_every_part_of_the_form_has_fields_on_the_page() -> None:
    sections = {field.section for field in web_fields()} - {""}
    assert sections == set(StrategyForm.model_fields) - {"owner", "description"}
    assert all(field.meaning for field in web_fields()), "a field that does not say what it means"
    assert len({field.path for field in web_fields()}) == len(web_fields())


def test_choices_are_those_of_the_schema() -> None:
    by_path = {field.path: field for field in web_fields()}
    assert by_path["label.transform"].choices == ["rank", "standard", "none"]
    assert "linear" in by_path["algorithm.name"].choices
    assert by_path["backtest.rebalance"].kind == "text", "a word, or a number of sessions"


@pytest.mark.parametrize("name", ["quickstart", "sp500_linear"])
def test_a_shipped_strategy_survives_the_page(name: str, tmp_path: Path) -> None:
    file = STRATEGIES / name / "defs.yaml"
    texts, kept = texts_of(file)
    written = tmp_path / name / "defs.yaml"
    written.parent.mkdir()
    written.write_text(as_yaml(attributes_from(texts, kept)))
    assert load(written) == load(file)


def test_what_no_page_shows_is_kept(tmp_path: Path) -> None:
    sources = [{"source": "files", "path": "a.csv", "basis": "as_traded"}, "yahoo"]
    attributes: dict[str, Any] = {"owner": "research", "prices": {"source": sources, "start": "2020-01-02"}}
    file = tmp_path / "defs.yaml"
    file.write_text(as_yaml(attributes))
    texts, kept = texts_of(file)
    assert kept == {"prices": {"source": sources}}
    assert attributes_from(texts, kept) == attributes


def test_numbers_lists_and_settings_become_what_a_file_would_say() -> None:
    texts = {
        "backtest.long": "0.1",
        "backtest.rebalance": "10",
        "backtest.simulations": "50",
        "features.names": "reversal_1w, volatility_1m",
        "algorithm.hyperparameters": "alpha: 0.5",
        "description": "",
    }
    made = attributes_from({**SMALLEST, **texts})
    assert made["backtest"] == {"long": 0.1, "rebalance": 10, "simulations": 50}
    assert made["features"]["names"] == ["reversal_1w", "volatility_1m"]
    assert made["algorithm"]["hyperparameters"] == {"alpha": 0.5}
    assert "description" not in made


@pytest.mark.parametrize("mark", TEMPLATE_MARKS)
def test_template_marks_are_refused_wherever_they_stand(mark: str) -> None:
    for path in ("owner", "description", "universe.sector", "features.names", "algorithm.hyperparameters"):
        text = f"alpha: {mark} x" if path.endswith("parameters") else f"a{mark} 7*7 }}}}"
        assert mark in _refused({path: text})[path]


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_whatever_is_written_holds_no_template_and_reads_back_as_it_was(text: str) -> None:
    try:
        made = attributes_from({**SMALLEST, "description": text, "universe.sector": text})
    except Mistakes:
        return
    written = as_yaml(made)
    assert not any(mark in written for mark in TEMPLATE_MARKS)
    assert yaml.safe_load(written) == {
        "type": "stockpicker_dagster.components.StockPickerStrategy",
        "attributes": made,
    }


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.csv", "files/../../outside.csv", "~root/x.csv"])
def test_no_file_outside_the_state_folder_can_be_named(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    if path.startswith("~"):
        # Nothing expands a tilde here: it is an odd name of a folder inside the home.
        assert attributes_from({**SMALLEST, "universe.file": path})["universe"]["file"] == path
        return
    assert "outside the state folder" in _refused({"universe.file": path})["universe.file"]


def test_a_link_does_not_lead_out_of_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "secret.csv").write_text("ticker\n")
    (home / "inside.csv").symlink_to(tmp_path / "secret.csv")
    monkeypatch.setenv("STOCKPICKER_HOME", str(home))
    assert "outside the state folder" in _refused({"universe.file": "inside.csv"})["universe.file"]


@pytest.mark.parametrize(
    ("texts", "place", "said"),
    [
        ({"label.horizon_days": "five"}, "label.horizon_days", "no number"),
        ({"label.horizon_days": "-1"}, "label.horizon_days", "greater than or equal to 1"),
        ({"backtest.spread_bps": "1e999"}, "backtest.spread_bps", "too large"),
        ({"periods.retrain": "hourly"}, "periods.retrain", "weekly"),
        ({"algorithm.hyperparameters": "alpha = 3"}, "algorithm.hyperparameters", "name: value"),
        ({"algorithm.hyperparameters": "alhpa: 3"}, "algorithm.hyperparameters", "did you mean 'alpha'"),
        ({"description": "a\x07b"}, "description", "control characters"),
        ({"owner": "x" * 20_001}, "owner", "20001 characters"),
        ({"trading.account": "Paper Account"}, "trading.account", "lower-case letter"),
    ],
)
def test_a_mistake_is_told_at_its_field(texts: dict[str, str], place: str, said: str) -> None:
    assert said in _refused(texts)[place]


@pytest.mark.parametrize("name", ["", "Mine", "1st", "a" * 42, "../mine", "mine/else", "{{x}}"])
def test_only_names_of_strategies_are_taken(name: str) -> None:
    with pytest.raises(Mistakes, match="cannot name a strategy"):
        checked(name, attributes_from(SMALLEST))
