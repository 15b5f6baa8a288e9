"""Features of one's own: where a module is found, what it must declare, and how each mistake is said."""

import sys
from pathlib import Path

import polars
import pytest
from pydantic import ValidationError

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.strategy_form import FeaturesForm, load
from stockpicker_dagster.strategy_form.feature_module import feature_module
from stockpicker_dagster_tests.components.forms import strategy_form

MODULE = '''"""Features of my own."""

from stockpicker_dagster.research.features import feature
from stockpicker_dagster.research.features.rolling import lag


@feature(lookback=6, inputs=["close", "adjustment"])
def weekly_return(panel):
    """P_t / P_{t-5} - 1."""
    return panel.adjusted_close / lag(panel.adjusted_close, 5) - 1.0


@feature(lookback=1, inputs=["close"], scale_invariant=False, price_level=True)
def price(panel):
    """C."""
    return panel.close


FEATURES = (weekly_return, price)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where modules lie in an empty state folder."""
    monkeypatch.setenv("STOCKPICKER_HOME", str(tmp_path))
    (tmp_path / "features").mkdir()
    return tmp_path / "features"


def write(folder: Path, text: str = MODULE, name: str = "mine.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(**fields: object) -> str:
    with pytest.raises(ValidationError) as refused:
        FeaturesForm.model_validate(fields)
    (error,) = refused.value.errors()
    return str(error["ctx"]["error"])


def test_a_module_in_the_state_folder_is_a_set_of_its_name(folder: Path) -> None:
    path = write(folder)
    module = feature_module("mine")
    assert (module.features.name, module.features.names, module.path) == ("mine", ("weekly_return", "price"), path)
    form = FeaturesForm.model_validate({"module": "mine", "names": ["price"]})
    assert (form.name, form.code, form.declared()) == ("mine", module.code, module.features)


def test_a_package_and_an_importable_module_are_found_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, MODULE.replace("FEATURES", "BOTH"), "whole/parts.py")
    write(folder, "from .parts import BOTH as FEATURES\n", "whole/__init__.py")
    assert feature_module("whole").features.names == ("weekly_return", "price")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    write(tmp_path / "elsewhere", name="installed_features.py")
    assert feature_module("installed_features").path == tmp_path / "elsewhere" / "installed_features.py"


def test_an_edited_module_is_another_definition_and_a_form_keeps_the_one_it_was_made_with(folder: Path) -> None:
    write(folder)
    before = strategy_form(features={"module": "mine"})
    again = strategy_form(features={"module": "mine"})
    write(folder, MODULE.replace("5) - 1.0", "4) - 1.0"))
    after = strategy_form(features={"module": "mine"})
    assert before.features_definition == again.features_definition != after.features_definition
    assert before.definition("scaled_features") == again.definition("scaled_features")
    assert before.definition("scaled_features") != after.definition("scaled_features")
    assert before.features.declared() is again.features.declared() is not after.features.declared()


def test_every_file_of_a_package_counts(folder: Path) -> None:
    write(folder, MODULE.replace("FEATURES", "BOTH"), "whole/parts.py")
    write(folder, "from .parts import BOTH as FEATURES\n", "whole/__init__.py")
    before = feature_module("whole")
    write(folder, MODULE.replace("FEATURES", "BOTH").replace("P_t", "P"), "whole/parts.py")
    after = feature_module("whole")
    assert before.code != after.code
    assert after.features.features[0].description == "P / P_{t-5} - 1."


def test_a_set_that_ships_has_no_code_and_keeps_its_definition(folder: Path) -> None:
    form = strategy_form()
    assert form.features.code is None
    assert form.features.name == "factors"
    assert form.shared_tables[-1] == "simulated/factors/features"


def test_its_price_levels_are_left_out_on_split_adjusted_prices(folder: Path) -> None:
    write(folder)
    files = {"source": "files", "path": "p.csv", "basis": "split_adjusted", "start": "2020-01-02"}
    form = strategy_form(features={"module": "mine"}, prices=files, universe={"symbols": ["A", "B"]})
    assert form.feature_set().names == ("weekly_return",)


def test_a_set_and_a_module_are_not_given_together(folder: Path) -> None:
    write(folder)
    assert "set 'factors' and module 'mine' were given" in refusal(set="factors", module="mine")


def test_an_unknown_name_is_refused_with_the_nearest(folder: Path) -> None:
    write(folder)
    assert "'prices' is not in the set 'mine'; did you mean 'price'?" in refusal(module="mine", names=["prices"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere\n", r"mine.py:1: ModuleNotFoundError: No module named 'nowhere'; correct it"),
        ("x = 1\ny = (\n", r"mine.py:2: SyntaxError: '\(' was never closed"),
        ("x = 1\n\ndef f():\n    return x / 0\n\nf()\n", r"mine.py:4: ZeroDivisionError: division by zero"),
        ("raise SystemExit\n", r"mine.py:1: SystemExit: no reason given"),
        (MODULE.replace("lookback=6", "lookback=0"), r"mine.py:7: InvalidInput: feature 'weekly_return' has a look"),
        ("x = 1\n", "has no FEATURES; list there"),
        ("FEATURES = (len,)\n", "has no FEATURES; list there"),
        (MODULE.replace("(weekly_return, price)", "()"), "'mine' has no features"),
        (MODULE.replace("(weekly_return, price)", "(price, price)"), r"\['price'\] declared twice"),
        (MODULE.replace("weekly_return", "symbol"), "'symbol' of the module 'mine' has the name of a key"),
        (
            MODULE.replace('inputs=["close"],', 'inputs=["close"], fundamentals=["assets"],'),
            "'price' of the module 'mine' needs figures of companies",
        ),
    ],
)
def test_a_module_that_cannot_be_used_is_refused_in_one_sentence(folder: Path, text: str, message: str) -> None:
    write(folder, text)
    with pytest.raises(InvalidInput, match=message) as refused:
        feature_module("mine")
    assert "\n" not in str(refused.value)


def test_a_module_that_is_not_there_or_has_a_taken_name_is_refused(folder: Path) -> None:
    assert f"put it at {folder / 'mine.py'}, or install it" in refusal(module="mine")
    assert "has the name of a set that ships" in refusal(module="factors")
    assert "cannot name a feature module" in refusal(module="os.path")


def test_a_library_is_no_feature_module_and_stays_as_it_was_imported(folder: Path) -> None:
    assert "has no FEATURES" in refusal(module="polars")
    assert sys.modules["polars"] is polars


def test_the_refusal_names_the_line_of_the_strategy(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "own" / "defs.yaml"
    path.parent.mkdir()
    path.write_text(
        "type: stockpicker_dagster.components.StockPickerStrategy\nattributes:\n  owner: research\n"
        "  universe: {name: simulated}\n  prices: {source: simulated}\n  features:\n    module: mine\n"
        "  periods: {train_years: 1, validation_years: 1, retrain: yearly}\n"
    )
    with pytest.raises(InvalidInput, match=r"defs.yaml:7: features.module: feature module 'mine' was not found"):
        load(path)
