"""Tables of the lake as files for other programs: CSV or Parquet, in a folder of the user's choice."""

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Literal

import polars as pl

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.storage.io_manager import UNPARTITIONED
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.training.datasets import CAPTIONS, TABLES, read_table

Table = Literal["prices", "features", "datasets", "predictions"]
Format = Literal["csv", "parquet"]


def export(
    table: Table,
    name: str,
    form: StrategyForm,
    deployment: Deployment,
    kind: Format,
    first: date | None,
    last: date | None,
    folder: Path,
) -> list[Path]:
    """Writes one table of a strategy into `folder` and returns the files, named after strategy and days.

    `datasets` are those of the last model whose period begins by `last`: train, validation, test, market data and
    captions. Raises `InvalidInput` if nothing is stored for the days asked for, or if `first` is given for datasets.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    if table == "datasets":
        if first is not None:
            raise InvalidInput(f"datasets are exported for one model, not from {first} on; name its period with --to")
        return _export_datasets(name, deployment, kind, last, folder)
    stored_as = {
        "prices": f"{form.prices.key}/prices",
        "features": f"{form.prices.key}/{form.features.name}/features",
        "predictions": f"{name}/predictions",
    }[table]
    stored = deployment.lake.days(stored_as)
    days = [day for day in stored if (first is None or day >= first) and (last is None or day <= last)]
    if not days:
        held = f"{stored[0]} to {stored[-1]}" if stored else "nothing"
        raise InvalidInput(f"{stored_as} has no day from {first or 'its start'} to {last or 'its end'}; stored: {held}")
    target = folder / f"{name}_{table}_{days[0]}_{days[-1]}.{kind}"
    return [_write(deployment.lake.read(stored_as, days), target, kind)]


def _export_datasets(name: str, deployment: Deployment, kind: Format, last: date | None, folder: Path) -> list[Path]:
    stored = deployment.lake.bundles(f"{name}/datasets")
    periods = [key for key in stored if last is None or key == UNPARTITIONED or key <= str(last)]
    if not periods:
        raise InvalidInput(f"{name}/datasets has no period that begins by {last or 'today'}; run the strategy first")
    source = deployment.lake.bundle(f"{name}/datasets", periods[-1])
    stem = f"{name}_datasets_{periods[-1]}"
    written = [
        _write(read_table(source, part), folder / f"{stem}_{part}.{kind}", kind) for part in (*TABLES, "market_data")
    ]
    captions = folder / f"{stem}_{CAPTIONS}"
    try:
        shutil.copyfile(source / CAPTIONS, captions)
    except OSError as error:
        raise _unwritable(captions, error) from error
    return [*written, captions]


def _write(frame: pl.DataFrame, path: Path, kind: Format) -> Path:
    fresh = path.with_name(f".{path.name}")
    try:
        if kind == "csv":
            _flat(frame).write_csv(fresh)
        else:
            frame.write_parquet(fresh)
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
    return path


def _unwritable(path: Path, error: OSError) -> StockPickerError:
    return StockPickerError(
        f"{path} cannot be written ({error.strerror or error}); choose another folder with --output"
    )


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists of contributions as `feature=value` words, because CSV has no lists."""
    return frame.with_columns(
        pl.col(name)
        .list.eval(pl.format("{}={}", pl.element().struct.field("feature"), pl.element().struct.field("value")))
        .list.join(" ")
        for name in _lists(frame)
    )


def _lists(frame: pl.DataFrame) -> Sequence[str]:
    return [name for name, kind in frame.schema.items() if isinstance(kind, pl.List)]
