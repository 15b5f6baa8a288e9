"""What is asked of a served model, and what it answers: rows of features as CSV or Parquet, scores likewise.

CSV without a header holds the features in the model's order, one row a line, and is answered by one score a line. With
a header, as in Parquet, columns are found by name and may come in any order; `symbol` and `date` are given back beside
the score, and other columns are ignored. A row is never dropped: what cannot be scored is refused, by line and column.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput

CSV = "text/csv"
PARQUET = ("application/x-parquet", "application/vnd.apache.parquet")
KEYS = ("symbol", "date")
MOST_VALUES = 2**27
"""So many values of features are held at once (half a gigabyte): a few bytes of Parquet can say that there are more."""


class Refused(InvalidInput):
    """A request is not answered; `status` is the HTTP status that says so."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Rows:
    """The rows of a request: values of shape (rows, features), and the columns that are given back beside the score."""

    values: NDArray[np.float32]
    keys: pl.DataFrame
    named: bool
    """Whether the columns had names, so that the answer's have too."""


def read_rows(content_type: str, body: bytes, features: Sequence[str]) -> Rows:
    """The rows in `body`. Raises `Refused`: 415 for another kind, 400 for what cannot be scored, 413 for too many."""
    kind = content_type.split(";")[0].strip().lower()
    if kind not in (CSV, *PARQUET):
        raise Refused(415, f"the content type {content_type!r} is not read; allowed: {CSV}, {', '.join(PARQUET)}")
    if not body.strip():
        raise Refused(400, "the body is empty; send at least one row")
    table, named = _parquet(body, features) if kind in PARQUET else _csv(body, features)
    if table.is_empty():
        raise Refused(400, "the body has no row; send at least one")
    missing = [name for name in features if name not in table.columns]
    if missing:
        raise Refused(
            400, f"the body lacks the features {_listed(missing)}; the model was trained on {_listed(features)}"
        )
    values = np.empty((table.height, len(features)), dtype=np.float32)
    for position, name in enumerate(features):
        values[:, position] = _numbers(table[name], named)
    keys = table.select(name for name in KEYS if name in table.columns and name not in features)
    return Rows(values, keys, named)


def write_scores(
    rows: Rows, scores: NDArray[np.float64], accept: str, reasons: Sequence[pl.Series] = ()
) -> tuple[str, bytes]:
    """Content type and body of the answer; `reasons` are further columns of it.

    Raises `Refused` with 406 if nothing that is accepted can be written.
    """
    kind = _chosen(accept)
    table = pl.DataFrame([*rows.keys.get_columns(), pl.Series("score", scores, dtype=pl.Float64), *reasons])
    if kind != CSV:
        buffer = io.BytesIO()
        table.write_parquet(buffer)
        return kind, buffer.getvalue()
    # Polars writes the shortest exact digits: a score that is read back is the very score.
    return CSV, table.write_csv(include_header=rows.named).encode()


def _chosen(accept: str) -> str:
    for each in (accept or "*/*").split(","):
        kind = each.split(";")[0].strip().lower()
        if kind in ("*/*", "text/*", CSV):
            return CSV
        if kind in PARQUET:
            return kind
        if kind == "application/*":
            return PARQUET[0]
    raise Refused(406, f"nothing in Accept {accept!r} can be written; allowed: {CSV}, {', '.join(PARQUET)}")


def _parquet(body: bytes, features: Sequence[str]) -> tuple[pl.DataFrame, bool]:
    try:
        frame = pl.scan_parquet(io.BytesIO(body))
        columns = frame.collect_schema().names()
        rows = int(frame.select(pl.len()).collect().item())
        if rows * max(1, len(features)) > MOST_VALUES:
            raise Refused(413, f"the body has {rows} rows; allowed at once: {MOST_VALUES // max(1, len(features))}")
        wanted = [name for name in columns if name in features or name in KEYS]
        return frame.select(wanted).collect(), True
    except pl.exceptions.PolarsError as error:
        raise Refused(400, f"the body cannot be read as Parquet: {_first_line(error)}") from error
    except pl.exceptions.PanicException as error:  # no `Exception`, and no reason to end the server
        raise Refused(400, f"the body cannot be read as Parquet: {_first_line(error)}") from None


def _csv(body: bytes, features: Sequence[str]) -> tuple[pl.DataFrame, bool]:
    first = body.split(b"\n", 1)[0].decode(errors="replace").strip().lstrip("﻿")
    cells = [cell.strip().strip('"') for cell in first.split(",")]
    named = any(cell in features for cell in cells)
    if named and len(set(cells)) != len(cells):
        raise Refused(400, f"the header names a column twice: {first[:200]}")
    try:
        table = pl.read_csv(body, has_header=named, infer_schema_length=0)
    except pl.exceptions.PolarsError as error:
        raise Refused(400, f"the body cannot be read as CSV: {_first_line(error)}") from error
    if named:
        return table.rename({name: name.strip() for name in table.columns}), True
    if table.width != len(features):
        raise Refused(
            400,
            f"the first line has {table.width} values, the model {len(features)} features; give {_listed(features)}, "
            "in that order, or begin with a line of names",
        )
    return table.rename(dict(zip(table.columns, features, strict=True))), False


def _numbers(column: pl.Series, named: bool) -> NDArray[np.float32]:
    if column.dtype != pl.String and not column.dtype.is_numeric():
        raise Refused(400, f"the feature {column.name} has the type {column.dtype}; it must be a number")
    text = column.str.strip_chars() if column.dtype == pl.String else column
    # Read as what they are: by way of double precision a number could be rounded twice.
    numbers = text.cast(pl.Float32, strict=False)
    bad = ~numbers.is_finite().fill_null(False)
    if bad.any():
        row = int(bad.arg_max() or 0)
        line = row + 1 + (1 if named and column.dtype == pl.String else 0)
        raise Refused(
            400,
            f"row {line}: the feature {column.name} is {column[row]!r}; every feature must be a finite number "
            "(scale and impute them first)",
        )
    return numbers.to_numpy()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
