"""A stored model and rows for it, and what scoring them here says; no test lives here."""

from pathlib import Path

import numpy as np
import polars as pl

from stockpicker_dagster.storage.lake import Lake
from stockpicker_dagster.training.inference import Scored, score_rows
from stockpicker_dagster.training.models import StoredModel, check_model, load_model, train_model
from stockpicker_dagster_tests.training.small_strategy import FEATURES, SCALED, TESTED, dataset

ROWS = SCALED.filter(pl.col("date").is_in(TESTED[:3])).sort("date", "symbol")


def stored_model(folder: Path) -> tuple[StoredModel, Path]:
    """A linear model in a lake under `folder`."""
    lake = Lake(folder / "lake")
    lake.write_bundle("bundles", "dataset", dataset())
    made = train_model("mine", "2023-06-01", lake.bundle("bundles", "dataset"), "linear", {"alpha": 1.0}, 0)
    lake.write_bundle("mine/trained_model", "2023-06-01", made)
    files = lake.bundle("mine/trained_model", "2023-06-01")
    return check_model(files, "mine", FEATURES), files


def scored_here(files: Path, rows: pl.DataFrame = ROWS) -> Scored:
    """What the model says of the rows, without any platform."""
    model = load_model(files, "mine", FEATURES)
    return score_rows(model.algorithm, rows.select(FEATURES).to_numpy().astype(np.float32), FEATURES)


def same(one: Scored, other: Scored) -> bool:
    """Whether two answers are equal, bit for bit."""
    names = ("scores", "named", "values")
    return all(
        getattr(one, name).tobytes() == getattr(other, name).tobytes()
        and getattr(one, name).dtype == getattr(other, name).dtype
        for name in names
    )
