"""What system tests share: short features, and a hand-made market that ran once."""

from pathlib import Path

import polars as pl
import pytest

from stockpicker_dagster_tests.system.pipelines import (
    CALENDAR,
    DAILY_FROM,
    END,
    EVENING,
    START,
    Pipeline,
    files_form,
    market_rows,
    short_features,
    simulated_form,
)

__all__ = ["short_features"]


@pytest.fixture(scope="session")
def price_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hand-made market as a CSV file."""
    path = tmp_path_factory.mktemp("files") / "prices.csv"
    market_rows().write_csv(path)
    return path


@pytest.fixture(scope="session")
def whole_run(price_file: Path, tmp_path_factory: pytest.TempPathFactory, short_features: None) -> Pipeline:
    """The strategy of `files_form` over the whole market, each asset in one run. Tests read it, or copy it."""
    pipeline = Pipeline(tmp_path_factory.mktemp("whole"), {"momentum": files_form(price_file)})
    pipeline.run(START, END)
    return pipeline


@pytest.fixture(scope="session")
def eve_run(tmp_path_factory: pytest.TempPathFactory, short_features: None) -> Pipeline:
    """The same on a file that ends before `DAILY_FROM`: a past from which days go on. Tests read it, or copy it."""
    folder, eve = tmp_path_factory.mktemp("eve"), CALENDAR.previous_session(DAILY_FROM)
    market_rows().filter(pl.col("date") <= eve).write_csv(folder / "prices.csv")
    pipeline = Pipeline(folder / "home", {"momentum": files_form(folder / "prices.csv")})
    pipeline.run(START, eve)
    return pipeline


@pytest.fixture(scope="session")
def evening_run(tmp_path_factory: pytest.TempPathFactory, short_features: None) -> Pipeline:
    """The same as `whole_run` on a file that ends on `EVENING`. Tests read it, or copy it."""
    folder = tmp_path_factory.mktemp("evening")
    market_rows().filter(pl.col("date") <= EVENING).write_csv(folder / "prices.csv")
    pipeline = Pipeline(folder / "home", {"momentum": files_form(folder / "prices.csv")})
    pipeline.run(START, EVENING)
    return pipeline


@pytest.fixture(scope="session")
def simulated_run(tmp_path_factory: pytest.TempPathFactory, short_features: None) -> Pipeline:
    """A small simulated market from its prices to a proposal for its last session. Tests read it, or copy it."""
    pipeline = Pipeline(tmp_path_factory.mktemp("simulated"), {"invented": simulated_form()})
    pipeline.run(START, END)
    return pipeline
