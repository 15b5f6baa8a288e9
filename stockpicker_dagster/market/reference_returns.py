"""Returns that a book is held against: a benchmark, or the factors of a data library, from the user's own CSV file.

Reading and aligning only; regressions are in `research.backtest.factor_model`.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput

LARGEST_DAILY_RETURN = 0.5
"""A daily return beyond this says that the file is in per cent: no broad index or factor ever moved so far."""


def read_reference_returns(path: str | Path) -> pl.DataFrame:
    """The file's column `date` (2024-03-08 or 20240308) and every other column as Float64 fractions, by date.

    Raises `InvalidInput` if the file or its dates cannot be read, a value is no number, a date comes twice, or the
    values are evidently per cent rather than fractions.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"the file of reference returns {path} does not exist; give a CSV with a column date")
    try:
        table = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"{path} cannot be read as CSV: {error}") from error
    names = {name.strip().casefold(): name for name in table.columns}
    if "date" not in names or len(names) < 2:
        raise InvalidInput(f"{path} needs a column date and one of returns; found: {', '.join(table.columns)}")
    texts = table[names.pop("date")].str.strip_chars()
    dates = texts.str.to_date("%Y-%m-%d", strict=False).fill_null(texts.str.to_date("%Y%m%d", strict=False))
    if dates.null_count():
        wrong = texts.filter(dates.is_null())[0]
        raise InvalidInput(f"{path}: {wrong!r} is no day; write it as 2024-03-08")
    columns = {name: _numbers(table[given], path) for name, given in names.items()}
    returns = pl.DataFrame({"date": dates, **columns}).sort("date")
    if returns["date"].is_duplicated().any():
        repeated = returns.filter(pl.col("date").is_duplicated())["date"][0]
        raise InvalidInput(f"{path} has {repeated} more than once; keep one row a day")
    largest = max(
        (float(np.nanmax(np.abs(values.to_numpy()))) for values in columns.values() if len(values)), default=0.0
    )
    if largest > LARGEST_DAILY_RETURN:
        raise InvalidInput(f"{path} has a daily return of {largest:g}; give fractions, 0.01 for one per cent")
    return returns


def aligned(returns: pl.DataFrame, names: Sequence[str], sessions: Sequence[date]) -> Mapping[str, NDArray[np.float64]]:
    """The named columns on `sessions`, `(T,)` each.

    Raises `InvalidInput` for an unknown name, and, naming the first, for sessions that the file lacks: a missing return
    is never taken for zero.
    """
    known = [name for name in returns.columns if name != "date"]
    for name in names:
        if name not in known:
            raise InvalidInput(f"the reference {name!r} is unknown; the file has: {', '.join(known)}")
    rows = pl.DataFrame({"date": sessions}, schema={"date": pl.Date}).join(returns, on="date", how="left")
    absent = rows.filter(pl.any_horizontal(pl.col(name).is_null() for name in names))["date"].sort()
    if len(absent):
        raise InvalidInput(
            f"the reference returns lack {len(absent)} of {len(sessions)} sessions, the first being {absent[0]}; "
            f"the file covers {returns['date'].min()!s} to {returns['date'].max()!s}"
        )
    return {name: rows.sort("date")[name].to_numpy() for name in names}


def _numbers(column: pl.Series, path: Path) -> pl.Series:
    texts = column.str.strip_chars().replace("", None)
    numbers = texts.cast(pl.Float64, strict=False)
    wrong = texts.filter(numbers.is_null() & texts.is_not_null())
    if len(wrong):
        raise InvalidInput(f"{path}: {column.name} {wrong[0]!r} is no number; leave unknown returns blank")
    return numbers
