"""The set `alpha158`: the 158 features of qlib's Alpha158 (Yang et al., 2020, "Qlib: An AI-oriented quantitative
investment platform"; definitions of release 0.9.7), under qlib's names. The loops are in `alpha158_kernels`.

Notation, for a stock and a session t: O, H, L, C are as-traded prices, P, PH and PL the close, high and low adjusted
for splits and dividends since the anchor, V shares adjusted by splits, w the window in sessions that ends at t. Every
value is known after the close of t. Where both are defined, values equal qlib's on the same data; where qlib divides
nothing by nothing, or counts missing sessions as if they had been seen, the feature is undefined instead:

- A session without a price row is unobserved. As in qlib, means, deviations, lines, ranks, quantiles, extremes, paths
  and correlations are over the observed sessions of the window, however few (a deviation or a line needs two); so a
  stock has values from its first sessions on. `CNTP`, `CNTN`, `CNTD`, `IMAX`, `IMIN` and `IMXD` need every session of
  the window: qlib takes a missing one for a session without a rise, and for the highest high.
- A window in which nothing moves, up to rounding (a variance below 1e-12 of its scale, a range or path of zero), has
  no `STD`, `RSQR`, `CORR`, `CORD`, `RSV`, `SUM*`, `VSTD`, `WVMA` or `VSUM*`; qlib answers with 0 or with noise. The
  shapes of a candle without a range are 0, as in qlib. Adjusted closes within 1e-9 of each other are equal.
- On a session without volume, `VMA` and `VSTD` are undefined (qlib divides by 1e-12). A change of volume from nothing
  is unobserved in `CORD`, as in qlib.
- No source here has a volume-weighted price: `VWAP0` takes the typical price of the session, (H + L + C) / 3.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.research.features import alpha158_kernels as kernels
from stockpicker_dagster.research.features.declaration import Feature, Formula
from stockpicker_dagster.research.features.panel import Panel
from stockpicker_dagster.research.features.rolling import lag

WINDOWS = (5, 10, 20, 30, 60)
"""The windows of every rolling feature, in sessions."""

Statistics = NDArray[np.float32]
"""Of shape (statistics, windows, sessions from `panel.since` on, symbols)."""
Family = Callable[[Panel], Statistics]

CLOSE = ("close", "adjustment")
HIGH = ("high", "close", "adjustment")
LOW = ("low", "close", "adjustment")
RANGE = ("high", "low", "close", "adjustment")
VOLUME = ("volume", "split_ratio")
BOTH = ("close", "volume", "split_ratio", "adjustment")


# The families: statistics that one pass over the panel gives together -------------------------------------------------


def _candle(panel: Panel) -> Statistics:
    return _filled(kernels.candle, panel, 13, None, panel.open, panel.high, panel.low, panel.close)


def _past_ratios(panel: Panel) -> Statistics:
    return _filled(kernels.past_ratios, panel, 1, WINDOWS, panel.adjusted_close)


def _trend(panel: Panel) -> Statistics:
    return _filled(kernels.trend, panel, 6, WINDOWS, panel.adjusted_close)


def _quantiles(panel: Panel) -> Statistics:
    shares = np.array([0.8, 0.2])
    return _filled(kernels.quantiles, panel, 2, WINDOWS, panel.adjusted_close, after=(shares,))


def _extremes(panel: Panel) -> Statistics:
    return _filled(kernels.extremes, panel, 6, WINDOWS, panel.adjusted_high, panel.adjusted_low, panel.adjusted_close)


def _price_and_volume(panel: Panel) -> Statistics:
    return _filled(kernels.correlation, panel, 1, WINDOWS, panel.adjusted_close, _log_above_one(panel.adjusted_volume))


def _changes_of_price_and_volume(panel: Panel) -> Statistics:
    traded = _log_above_one(panel.adjusted_volume / lag(panel.adjusted_volume, 1))
    return _filled(kernels.correlation, panel, 1, WINDOWS, panel.once(_growth), traded)


def _rises_and_falls(panel: Panel) -> Statistics:
    change = panel.once(_price_changes)
    return _filled(kernels.rises_and_falls, panel, 3, WINDOWS, change, panel.adjusted_close)


def _gains_and_losses(panel: Panel) -> Statistics:
    return _filled(kernels.gains_and_losses, panel, 3, WINDOWS, panel.once(_price_changes))


def _volume(panel: Panel) -> Statistics:
    return _filled(kernels.moments, panel, 3, WINDOWS, panel.adjusted_volume)


def _weighted_volatility(panel: Panel) -> Statistics:
    moved = np.abs(panel.once(_growth) - 1.0) * panel.adjusted_volume
    return _filled(kernels.moments, panel, 3, WINDOWS, _single(moved))


def _volume_gains_and_losses(panel: Panel) -> Statistics:
    return _filled(kernels.gains_and_losses, panel, 3, WINDOWS, _single(kernels.changes(panel.adjusted_volume)))


def _price_changes(panel: Panel) -> NDArray[np.float64]:
    return kernels.changes(panel.adjusted_close)


def _growth(panel: Panel) -> NDArray[np.float64]:
    return _single(panel.adjusted_close / lag(panel.adjusted_close, 1))


def _log_above_one(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(x + 1) in single precision, in which NumPy takes every element through the same steps wherever it lies."""
    return _single(np.log(values.astype(np.float32) + np.float32(1.0)))


def _single(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rounded to single precision as qlib does between its operators; unobserved where that is infinite.

    Elsewhere nothing is rounded before the end: only in correlations, deviations of changes and paths of large volumes
    could it be seen.
    """
    single = values.astype(np.float32)
    return np.where(np.isfinite(single), single, np.float32(np.nan)).astype(np.float64)


def _filled(
    kernel: Callable[..., None],
    panel: Panel,
    statistics: int,
    windows: tuple[int, ...] | None,
    *inputs: NDArray[np.float64],
    after: tuple[NDArray[np.float64], ...] = (),
) -> Statistics:
    rows, columns = panel.shape
    answers = np.empty((statistics, len(windows or (1,)), rows - panel.since, columns), dtype=np.float32)
    lengths = () if windows is None else (np.array(windows), *after)
    kernel(*(np.ascontiguousarray(each) for each in inputs), *lengths, panel.since, answers)
    return answers


# The features: what of a family's statistics goes under which name ----------------------------------------------------


class _Rolling(NamedTuple):
    """One operator of Alpha158, for every window: a statistic of a family, with what a docstring says of it."""

    prefix: str
    family: Family
    statistic: int
    before: int
    """Sessions needed before the window."""
    inputs: tuple[str, ...]
    meaning: str
    scale_invariant: bool = True


_CANDLE = (
    ("KMID", ("open", "close"), "(C - O) / O."),
    ("KLEN", ("open", "high", "low"), "(H - L) / O."),
    ("KMID2", ("open", "high", "low", "close"), "(C - O) / (H - L)."),
    ("KUP", ("open", "high", "close"), "(H - max(O, C)) / O."),
    ("KUP2", ("open", "high", "low", "close"), "(H - max(O, C)) / (H - L)."),
    ("KLOW", ("open", "low", "close"), "(min(O, C) - L) / O."),
    ("KLOW2", ("open", "high", "low", "close"), "(min(O, C) - L) / (H - L)."),
    ("KSFT", ("open", "high", "low", "close"), "(2 C - H - L) / O."),
    ("KSFT2", ("high", "low", "close"), "(2 C - H - L) / (H - L)."),
    ("OPEN0", ("open", "close"), "O / C."),
    ("HIGH0", ("high", "close"), "H / C."),
    ("LOW0", ("low", "close"), "L / C."),
    ("VWAP0", ("high", "low", "close"), "Typical price (H + L + C) / 3 over C, in the place of a volume-weighted one."),
)

_ROLLING = (
    _Rolling("ROC", _past_ratios, 0, 1, CLOSE, "P of w sessions ago over P."),
    _Rolling("MA", _trend, 0, 0, CLOSE, "Mean of P over w, over P."),
    _Rolling("STD", _trend, 1, 0, CLOSE, "Standard deviation (n - 1) of P over w, over P."),
    _Rolling("BETA", _trend, 2, 0, CLOSE, "Slope a session of the least-squares line through P over w, over P."),
    _Rolling("RSQR", _trend, 3, 0, CLOSE, "R squared of the least-squares line through P over w."),
    _Rolling("RESI", _trend, 4, 0, CLOSE, "Distance of P from the least-squares line through P over w, over P."),
    _Rolling("MAX", _extremes, 0, 0, HIGH, "Largest PH of w, over P."),
    _Rolling("MIN", _extremes, 1, 0, LOW, "Smallest PL of w, over P."),
    _Rolling("QTLU", _quantiles, 0, 0, CLOSE, "80 % quantile of P over w (interpolated linearly), over P."),
    _Rolling("QTLD", _quantiles, 1, 0, CLOSE, "20 % quantile of P over w (interpolated linearly), over P."),
    _Rolling("RANK", _trend, 5, 0, CLOSE, "Rank of P among those of w (ties in the middle), over their number."),
    _Rolling("RSV", _extremes, 2, 0, RANGE, "(P - smallest PL of w) / (largest PH of w - smallest PL of w)."),
    _Rolling(
        "IMAX",
        _extremes,
        3,
        0,
        ("high", "adjustment"),
        "Place of the largest PH in the window, 1 the oldest session, over w.",
    ),
    _Rolling(
        "IMIN",
        _extremes,
        4,
        0,
        ("low", "adjustment"),
        "Place of the smallest PL in the window, 1 the oldest session, over w.",
    ),
    _Rolling("IMXD", _extremes, 5, 0, ("high", "low", "adjustment"), "IMAX - IMIN of w."),
    _Rolling("CORR", _price_and_volume, 0, 0, BOTH, "Correlation over w of P and ln(V + 1).", scale_invariant=False),
    _Rolling(
        "CORD",
        _changes_of_price_and_volume,
        0,
        1,
        BOTH,
        "Correlation over w of P_t / P_{t-1} and ln(V_t / V_{t-1} + 1).",
    ),
    _Rolling("CNTP", _rises_and_falls, 0, 1, CLOSE, "Share of w on which P rose."),
    _Rolling("CNTN", _rises_and_falls, 1, 1, CLOSE, "Share of w on which P fell."),
    _Rolling("CNTD", _rises_and_falls, 2, 1, CLOSE, "CNTP - CNTN of w."),
    _Rolling(
        "SUMP", _gains_and_losses, 0, 1, CLOSE, "Sum of the rises of P over w, over that of its absolute changes."
    ),
    _Rolling(
        "SUMN", _gains_and_losses, 1, 1, CLOSE, "Sum of the falls of P over w, over that of its absolute changes."
    ),
    _Rolling("SUMD", _gains_and_losses, 2, 1, CLOSE, "SUMP - SUMN of w."),
    _Rolling("VMA", _volume, 0, 0, VOLUME, "Mean of V over w, over V."),
    _Rolling("VSTD", _volume, 1, 0, VOLUME, "Standard deviation (n - 1) of V over w, over V."),
    _Rolling(
        "WVMA", _weighted_volatility, 2, 1, BOTH, "Standard deviation over w of |P_t / P_{t-1} - 1| V by its mean."
    ),
    _Rolling(
        "VSUMP", _volume_gains_and_losses, 0, 1, VOLUME, "Sum of the rises of V over w, over that of its changes."
    ),
    _Rolling(
        "VSUMN", _volume_gains_and_losses, 1, 1, VOLUME, "Sum of the falls of V over w, over that of its changes."
    ),
    _Rolling("VSUMD", _volume_gains_and_losses, 2, 1, VOLUME, "VSUMP - VSUMN of w."),
)


def _features() -> Iterator[Feature]:
    for place, (name, inputs, meaning) in enumerate(_CANDLE):
        yield Feature(name, _formula(_candle, place, 0, meaning), 1, inputs)
    for each in _ROLLING:
        for place, window in enumerate(WINDOWS):
            yield Feature(
                f"{each.prefix}{window}",
                _formula(each.family, each.statistic, place, f"{each.meaning} w = {window}."),
                window + each.before,
                each.inputs,
                each.scale_invariant,
                # ln(V + 1) near no volume tells V's scale, which on split-adjusted prices knows later splits.
                price_level=not each.scale_invariant,
            )


def _formula(family: Family, statistic: int, window: int, meaning: str) -> Formula:
    def formula(panel: Panel) -> NDArray[np.float32]:
        return panel.once(family)[statistic, window]

    formula.__doc__ = meaning
    return formula


FEATURES: tuple[Feature, ...] = tuple(_features())
"""The set, in qlib's order of columns."""
