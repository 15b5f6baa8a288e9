"""Whether a training table knows what it cannot know: the traps that a rank IC does not show, looked for by name.

`LabelLeak` is a feature that is a label not yet known on its day, `WholeSampleScaling` a scale that was taken from more
than one date; a label that reaches into a later part is `splits.LabelOverlap`. A few days spread over the table are
looked at, which is enough: each of the three shows on nearly every day. Kaufman, Rosset and Perlich (2012), "Leakage in
data mining".
"""

from collections.abc import Callable, Sequence
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.cross_section import NEUTRAL, Method, date_blocks
from stockpicker_dagster.research.order_statistics import average_ranks

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

_DAYS = 20
"""Days that are looked at, spread evenly."""
_FEWEST_DAYS, _FEWEST_ROWS = 5, 50
"""Below these a perfect rank correlation may be chance, and nothing is said."""
_SAME = 0.99
"""A mean rank correlation from which on a feature is the label. The return of the sessions that are known is correlated
with an unknown label by .92 at most, where it lacks a single night."""
_FARTHEST = 5
"""Sessions by which a label may have been shifted."""
_ROUNDING = 1e-3
"""How far a day's mean or variance may be from what its scale makes it: features are stored as float32."""


class LabelLeak(InvalidInput):
    """A feature is a label that is not known on its day."""


class WholeSampleScaling(InvalidInput):
    """Features were not scaled on each date by itself, so that other dates, later ones among them, are in them."""


def assert_no_label_leak(table: pl.DataFrame, features: Sequence[str], label: str, horizon_days: int) -> None:
    """Raises `LabelLeak`, naming the features, if one ranks stocks as a label does that nobody knows by then.

    `table` holds `symbol`, `date`, the features and the label of consecutive sessions. On day t the label of t is
    unknown, and so are those of later sessions and of the h - 1 before; features are held against those up to five
    sessions away, and with a horizon of one session against that of the day before too, whose last open is tomorrow's.
    """
    rows = table.sort("date", "symbol")
    days = rows["date"].unique().sort().to_list()
    blocks, symbols = date_blocks(rows["date"]), rows["symbol"].to_numpy()
    values, labels = rows.select(features).to_numpy().astype(np.float64), rows[label].to_numpy()
    back = max(1, min(_FARTHEST, horizon_days - 1))
    shifts = range(-back, _FARTHEST + 1)
    found: dict[int, list[Vector]] = {shift: [] for shift in shifts}
    compared = 0
    for place in _spread(back, len(days) - _FARTHEST):
        others = [slice(int(blocks[place + shift]), int(blocks[place + shift + 1])) for shift in shifts]
        common = symbols[others[back]]
        for other in others:
            common = np.intersect1d(common, symbols[other], assume_unique=True)
        if len(common) < 2:
            continue
        compared += len(common)
        own = others[back]
        ranked = _ranks(values[own][np.searchsorted(symbols[own], common)])
        for shift, other in zip(shifts, others, strict=True):
            theirs = labels[other][np.searchsorted(symbols[other], common)]
            found[shift].append(_ranks(theirs[:, None]).T[0] @ ranked)
    if compared < _FEWEST_ROWS or min(len(each) for each in found.values()) < _FEWEST_DAYS:
        return
    for shift, correlations in found.items():
        mean = np.abs(np.mean(correlations, axis=0))
        if leaking := np.flatnonzero(mean >= _SAME).tolist():
            raise LabelLeak(
                f"label leak: {_named([features[place] for place in leaking])} is the label {_when(shift)} (mean rank "
                f"correlation {mean[leaking[0]]:.3f} on {len(correlations)} days), which is known only "
                f"{1 + horizon_days + shift} sessions after the day; make it from prices up to its day, or leave it out"
            )


def assert_scaled_by_date(scaled: pl.DataFrame, features: Sequence[str], method: Method) -> None:
    """Raises `WholeSampleScaling`, naming features and a day, if `scaled` is not scaled by `method` date by date.

    `scaled` holds every row that a date was scaled over, imputed ones too, as `cross_section.scale` gives them. What is
    looked at: the mean and the variance (`standard`), the ends (`minmax`), the mean rank (`rank`), the median
    (`robust`) of each date. A feature is refused if most of the dates are wrong.
    """
    days = scaled["date"].unique().sort().to_list()
    looked_at = [days[place] for place in _spread(0, len(days))]
    agrees, wrong = _AGREEMENTS[method], np.zeros(len(features), dtype=np.int64)
    last: dict[str, date] = {}
    for day in looked_at:
        values = scaled.filter(pl.col("date") == day).select(features).to_numpy().astype(np.float64)
        for place, name in enumerate(features):
            column = values[:, place]
            if not (np.all(column == NEUTRAL[method]) or agrees(column)):
                wrong[place] += 1
                last[name] = day
    if bad := np.flatnonzero(2 * wrong > len(looked_at)).tolist():
        names = [features[place] for place in bad]
        raise WholeSampleScaling(
            f"whole-sample scaling: {_named(names)} does not have the {method} scale on {wrong[bad[0]]} of "
            f"{len(looked_at)} days by themselves, such as {last[names[0]]}; scale each date over that date's members "
            "alone (research.cross_section.scale), so that no other day is in it"
        )


def _spread(first: int, end: int) -> list[int]:
    """At most `_DAYS` places from `first` up to `end`, evenly."""
    return np.unique(np.linspace(first, end - 1, min(_DAYS, end - first)).astype(int)).tolist() if end > first else []


def _ranks(columns: Matrix) -> Matrix:
    """The ranks of each column, centred and of unit length; zeros for a constant one."""
    ranked = np.column_stack([average_ranks(np.ascontiguousarray(column)) for column in columns.T])
    ranked -= ranked.mean(axis=0)
    length = np.sqrt((ranked**2).sum(axis=0))
    return np.asarray(ranked / np.where(length > 0.0, length, 1.0))


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return f"feature {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _when(shift: int) -> str:
    if shift == 0:
        return "of its own day"
    return f"of {abs(shift)} session{'s' if abs(shift) > 1 else ''} {'later' if shift > 0 else 'before'}"


def _standard(column: Vector) -> bool:
    """Whether mean and variance of the rows that are not imputed are 0 and 1.

    With n rows of sum S and sum of squares Q, m of them imputed by c: S = m c, and Q - m c^2 = n - m.
    """
    n, total, square = len(column), column.sum(), (column**2).sum()
    for filled, most in _fillings(column):
        own = 1.0 - filled**2
        imputed = (n - square) / own if abs(own) > _ROUNDING else total / filled
        imputed = float(np.clip(imputed, 0.0, most))
        off = max(abs(total - imputed * filled), abs(square - imputed * filled**2 - n + imputed))
        if off <= _ROUNDING * n:
            return True
    return False


def _fillings(column: Vector) -> list[tuple[float, int]]:
    """By what rows may have been imputed, and how many at most: the median, which imputing by it leaves where it was,
    or the neutral 0."""
    return [(filled, int(np.isclose(column, filled, atol=1e-6).sum())) for filled in (float(np.median(column)), 0.0)]


def _minmax(column: Vector) -> bool:
    return bool(abs(column.min()) <= _ROUNDING and abs(column.max() - 1.0) <= _ROUNDING)


def _rank(column: Vector) -> bool:
    """Whether the ranks of the rows that are not imputed have the mean 0."""
    for filled, most in _fillings(column):
        imputed = float(np.clip(column.sum() / filled, 0.0, most)) if abs(filled) > _ROUNDING else 0.0
        if abs(column.sum() - imputed * filled) <= _ROUNDING * len(column):
            return bool(np.abs(column).max() <= 0.5 + _ROUNDING)
    return False


def _robust(column: Vector) -> bool:
    """Whether the median is 0, as imputed rows are."""
    return bool(abs(np.median(column)) <= _ROUNDING)


_AGREEMENTS: dict[Method, Callable[[Vector], bool]] = {
    "standard": _standard,
    "minmax": _minmax,
    "rank": _rank,
    "robust": _robust,
}
