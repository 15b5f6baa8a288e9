"""What Dagster shows of features: how many there are, how they spread, and how they moved since the day before.

The figures of a session are taken while its rows pass by, because a long range of features is never held at once. What
must hold of them is in `checks`; features themselves are computed in `research`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.components.metadata import distributions, lines_plot
from stockpicker_dagster.storage.lake import Lake

Matrix = NDArray[np.float64]

RECENT = 5
"""Sessions that a session's coverage is compared with, and on which a column must have varied."""


@dataclass(frozen=True)
class DayFigures:
    """Figures of the columns of a table: `stocks` by session, the others of shape (sessions, columns).

    `values` counts what is not null, `broken` what is NaN or infinite; `smallest` and `largest` are NaN without values.
    """

    names: tuple[str, ...]
    days: tuple[date, ...]
    stocks: NDArray[np.int64]
    values: NDArray[np.int64]
    broken: NDArray[np.int64]
    smallest: Matrix
    largest: Matrix

    @classmethod
    def of(cls, frame: pl.DataFrame, names: Sequence[str]) -> "DayFigures":
        """The figures of every session that `frame` has rows of."""
        columns = [pl.col(name) for name in names]
        found = (
            frame.group_by("date")
            .agg(
                pl.len().alias("stocks"),
                *(each.count().name.prefix("values ") for each in columns),
                *((~each.is_finite()).sum().name.prefix("broken ") for each in columns),
                *(each.min().name.prefix("smallest ") for each in columns),
                *(each.max().name.prefix("largest ") for each in columns),
            )
            .sort("date")
        )

        def figure(kind: str, dtype: type) -> Any:
            return found.select(f"{kind} {name}" for name in names).to_numpy().astype(dtype)

        return cls(
            tuple(names),
            tuple(found["date"]),
            found["stocks"].to_numpy().astype(np.int64),
            figure("values", np.int64),
            figure("broken", np.int64),
            figure("smallest", float),
            figure("largest", float),
        )

    def then(self, later: "DayFigures") -> "DayFigures":
        """These sessions, followed by later ones of the same columns."""
        return DayFigures(
            self.names,
            self.days + later.days,
            np.concatenate([self.stocks, later.stocks]),
            np.concatenate([self.values, later.values]),
            np.concatenate([self.broken, later.broken]),
            np.concatenate([self.smallest, later.smallest]),
            np.concatenate([self.largest, later.largest]),
        )

    def counting(self, others: "DayFigures") -> "DayFigures":
        """These figures, with the counts of values of other figures where those have the session."""
        values = self.values.copy()
        row_of = {day: row for row, day in enumerate(others.days)}
        for row, day in enumerate(self.days):
            if day in row_of:
                values[row] = others.values[row_of[day]]
        return replace(self, values=values)

    @property
    def coverage(self) -> Matrix:
        """The share of the session's stocks that have a value, by session and column."""
        return self.values / np.maximum(self.stocks, 1)[:, None]


class FeatureView:
    """Takes the figures of features as their pieces pass by, beginning with the sessions stored before them."""

    def __init__(self, names: Sequence[str], before: pl.DataFrame) -> None:
        self.names = tuple(names)
        self.figures = DayFigures.of(before, names)
        self._last = before

    def watched(
        self, pieces: Iterable[tuple[Sequence[date], pl.DataFrame]]
    ) -> Iterator[tuple[Sequence[date], pl.DataFrame]]:
        """The pieces as they are, after a look at each."""
        for days, frame in pieces:
            self.look_at(days, frame)
            yield days, frame

    def look_at(self, days: Sequence[date], frame: pl.DataFrame) -> None:
        """Takes the figures of `frame`, which holds the rows of `days`, later than all before."""
        self.figures = self.figures.then(DayFigures.of(frame, self.names))
        recent = pl.concat([self._last, frame.filter(pl.col("date").is_in(days[-2:]))])
        self._last = recent.filter(pl.col("date").is_in(recent["date"].unique().sort().tail(2).to_list()))

    def metadata(self) -> dict[str, Any]:
        """The coverage of every session, and the columns of the last one."""
        if not self.figures.days:
            return {}
        coverage = pl.DataFrame({"date": self.figures.days, "coverage": self.figures.coverage.mean(axis=1)})
        last = self._last.filter(pl.col("date") == self.figures.days[-1])
        return {
            **lines_plot("coverage", coverage),
            "columns_last_day": columns_table(self._last, self.names, self.figures.days[-1]),
            **distributions(
                "distributions_last_day", {name: last[name].drop_nulls().to_numpy() for name in self.names}
            ),
        }


def stored_before(lake: Lake, table: str, names: Sequence[str], definition: str, day: date) -> pl.DataFrame:
    """The last few sessions before `day` that are stored; empty if any of them was made under another definition."""
    earlier = [each for each in lake.days(table) if each < day][-RECENT:]
    if not earlier or set(earlier) & set(lake.days_of_another_definition(table, definition)):
        return pl.DataFrame(schema={"symbol": pl.String, "date": pl.Date} | dict.fromkeys(names, pl.Float32))
    return lake.scan(table, earlier).select("symbol", "date", *names).collect()


def columns_table(frame: pl.DataFrame, names: Sequence[str], day: date) -> dg.MarkdownMetadataValue:
    """Null rate, quantiles and correlation with the session before of every column, on `day`."""
    today = frame.filter(pl.col("date") == day)
    before = frame.filter(pl.col("date") < day)
    both = today.join(before, on="symbol", suffix=" before") if before.height else today.clear()
    rows = ["| column | null | 1 % | median | 99 % | correlation with the day before |", "| --- " * 6 + "|"]
    for name in names:
        column = today[name]
        low, middle, high = (column.quantile(share, "linear") for share in (0.01, 0.5, 0.99))
        moved = _correlation(both[name], both[f"{name} before"]) if both.height else None
        rows.append(
            f"| {name} | {column.null_count() / max(1, today.height):.1%} | {_figure(low)} | {_figure(middle)} | "
            f"{_figure(high)} | {_figure(moved)} |"
        )
    return dg.MetadataValue.md("\n".join(rows))


def _correlation(first: pl.Series, second: pl.Series) -> float | None:
    pairs = pl.DataFrame({"x": first.cast(pl.Float64), "y": second.cast(pl.Float64)}).drop_nulls()
    if pairs.height < 2 or pairs["x"].n_unique() < 2 or pairs["y"].n_unique() < 2:
        return None
    return float(np.corrcoef(pairs["x"], pairs["y"])[0, 1])


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
