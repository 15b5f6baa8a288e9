"""What travels arrives as it was, and is called the same by every process."""

import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.compute.travelling import identity, packed, pickled, unpacked, unpickled
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.research.features import feature_set
from stockpicker_dagster.research.features.computation import _compute_for
from stockpicker_dagster_tests.research.price_frames import same_bytes

NAMED = """
from stockpicker_dagster_tests.compute.test_travelling import features_on, identity
print(identity(features_on("factors", 6)))
"""
OWN = """
import polars as pl
SCALE = 3.0
def work(frame):
    return frame.with_columns(x=pl.lit(SCALE))
"""


def features_on(name: str, day: int) -> Callable[..., pl.DataFrame]:
    days = [date(2020, 1, day)]
    return partial(_compute_for, feature_set(name), days, trading_calendar(), days[0], days[0])


def test_two_processes_give_one_function_one_name_and_others_another() -> None:
    said = subprocess.run([sys.executable, "-c", NAMED], capture_output=True, text=True, check=True).stdout.strip()
    assert said == identity(features_on("factors", 6))
    assert len({said, identity(features_on("factors", 7)), identity(features_on("alpha158", 6))}) == 3


@pytest.fixture
def own_module(tmp_path: Path) -> Iterator[types.ModuleType]:
    module = types.ModuleType("known_here_alone")
    module.__file__ = str(tmp_path / "known_here_alone.py")
    Path(module.__file__).write_text(OWN)
    sys.modules[module.__name__] = module
    exec(OWN, module.__dict__)
    yield module
    sys.modules.pop(module.__name__, None)


def test_a_changed_module_of_ones_own_has_another_name(own_module: types.ModuleType) -> None:
    work, own = own_module.work, [own_module.__name__]
    before = identity(work, own)
    assert identity(work, own) == before
    Path(str(own_module.__file__)).write_text(OWN.replace("3.0", "4.0"))
    assert identity(work, own) != before
    own_module.__file__ = None
    assert identity(work, own) != identity(work, own)


def test_code_of_a_module_of_ones_own_travels_along(own_module: types.ModuleType) -> None:
    sent = pickled(own_module.work, [own_module.__name__])
    assert len(sent) > 2 * len(pickled(np.linalg.norm))
    del sys.modules[own_module.__name__]
    assert unpickled(sent)(pl.DataFrame({"a": [1]}))["x"].to_list() == [3.0]


def test_functions_and_frames_arrive_as_they_were() -> None:
    frame = pl.DataFrame({"a": [1.0, None, float("nan"), -0.0], "b": ["x", None, "", "y"]})
    assert same_bytes(unpacked(packed(frame)), frame)
    work = unpickled(pickled(partial(pl.DataFrame.head, n=2)))
    assert same_bytes(work(frame), frame.head(2))
