"""How a feature is declared, and what a named set of features is.

A feature is a function from a `Panel` to one float64 matrix of shape (sessions, symbols), decorated with what the
platform has to know about it. This file knows no formula: those are in the files of the sets, such as `factors`.
"""

import difflib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.research.features.fundamentals import FIGURES
from stockpicker_dagster.research.features.panel import PANEL_COLUMNS, Panel

Formula = Callable[[Panel], NDArray[np.float64] | NDArray[np.float32]]
"""Values of every session of the panel, or of those from `panel.since` on alone."""

_SETS = {
    "alpha158": "stockpicker_dagster.research.features.alpha158",
    "factors": "stockpicker_dagster.research.features.factors",
    "multi_factor": "stockpicker_dagster.research.features.fundamental_factors",
}
"""The sets that ship, by name, and the modules whose `FEATURES` they are."""


@dataclass(frozen=True)
class Feature:
    """One declared feature.

    `lookback` counts the sessions it needs up to and including the day it is for. `inputs` names the columns of the
    price contract that it depends on. `scale_invariant`: multiplying all prices of a stock, or all its volumes, by a
    constant changes nothing. `price_level`: it tells apart prices that differ only by a constant, which on
    split-adjusted prices reveals the splits of the future. `fundamentals` names the figures of company statements that
    it depends on.
    """

    name: str
    formula: Formula
    lookback: int
    inputs: tuple[str, ...]
    scale_invariant: bool = True
    price_level: bool = False
    fundamentals: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """Formula, look-back and paper, as the docstring of the function says."""
        return inspect.getdoc(self.formula) or ""

    def __call__(self, panel: Panel) -> NDArray[np.float64]:
        """The feature at every session of the panel; NaN before `panel.since` and where undefined, never infinite."""
        found = self.values(panel)
        values = np.full(panel.shape, np.nan)
        values[panel.since :] = np.where(np.isfinite(found), found, np.nan)
        return values

    def values(self, panel: Panel) -> NDArray[np.float64] | NDArray[np.float32]:
        """What the formula says of the sessions from `panel.since` on; NaN or infinite where undefined.

        Raises `InvalidInput` if that has the shape of neither these sessions nor the whole panel.
        """
        with np.errstate(all="ignore"):
            values = self.formula(panel)
        rows, columns = panel.shape
        if values.shape == (rows, columns):
            return values[panel.since :]
        if values.shape == (rows - panel.since, columns):
            return values
        raise InvalidInput(f"feature {self.name!r} returned the shape {values.shape}; it must be {panel.shape}")


def feature(
    lookback: int,
    inputs: Sequence[str],
    scale_invariant: bool = True,
    price_level: bool = False,
    fundamentals: Sequence[str] = (),
) -> Callable[[Formula], Feature]:
    """Declare a feature: the decorated function becomes a `Feature` of its own name.

    Raises `InvalidInput` for a look-back below one, an input that is no price column, a figure that no statement has,
    no input at all, a missing docstring, or a feature of the price level that claims to be invariant to scale.
    """

    def declare(formula: Formula) -> Feature:
        name = formula.__name__
        unknown = sorted(set(inputs) - set(PANEL_COLUMNS))
        if lookback < 1:
            raise InvalidInput(f"feature {name!r} has a look-back of {lookback} sessions; it must be at least 1")
        if unreported := sorted(set(fundamentals) - set(FIGURES)):
            raise InvalidInput(f"feature {name!r} needs the figures {unreported}; known: {', '.join(FIGURES)}")
        if unknown or not (inputs or fundamentals):
            raise InvalidInput(f"feature {name!r} has the inputs {list(inputs)}; known: {', '.join(PANEL_COLUMNS)}")
        if not inspect.getdoc(formula):
            raise InvalidInput(f"feature {name!r} has no docstring; give its formula, look-back and source")
        if price_level and scale_invariant:
            raise InvalidInput(f"feature {name!r} is of the price level; declare it with scale_invariant=False")
        return Feature(name, formula, lookback, tuple(inputs), scale_invariant, price_level, tuple(fundamentals))

    return declare


@dataclass(frozen=True)
class FeatureSet:
    """Features that are computed and stored together, in this order.

    `lookback` is the longest of the set as it was declared. A selection keeps it: it sets the anchor from which
    adjusted prices cumulate, so that a feature has the same bytes however many others are asked for.
    """

    name: str
    features: tuple[Feature, ...]
    lookback: int

    @classmethod
    def of(cls, name: str, features: Sequence[Feature]) -> "FeatureSet":
        """A set of these features; `InvalidInput` if there are none or two of one name."""
        names = [each.name for each in features]
        repeated = sorted({each for each in names if names.count(each) > 1})
        if not features or repeated:
            raise InvalidInput(
                f"feature set {name!r} has no features" if not features else f"{repeated} declared twice"
            )
        return cls(name, tuple(features), max(each.lookback for each in features))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the set, in order."""
        return tuple(each.name for each in self.features)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The price columns that any feature of the set depends on, in the order of the price contract."""
        used = {column for each in self.features for column in each.inputs}
        return tuple(column for column in PANEL_COLUMNS if column in used)

    @property
    def fundamentals(self) -> tuple[str, ...]:
        """The figures of company statements that any feature of the set depends on; empty for a set of prices alone."""
        used = {figure for each in self.features for figure in each.fundamentals}
        return tuple(figure for figure in FIGURES if figure in used)

    def select(self, names: Sequence[str]) -> "FeatureSet":
        """The features of these names, in the order given; an unknown name raises `InvalidInput`."""
        known = {each.name: each for each in self.features}
        for name in names:
            if name not in known:
                raise InvalidInput(self._unknown(name))
        return replace(self, features=tuple(known[name] for name in names))

    def without_price_level(self) -> "FeatureSet":
        """The set as it may be computed on split-adjusted prices; asking it for a feature left out is an error."""
        kept = tuple(each for each in self.features if not each.price_level)
        left_out = tuple(each.name for each in self.features if each.price_level)
        return _SplitAdjustedSet(self.name, kept, self.lookback, left_out)

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process a set that ships goes by name: kernels that went as code would be compiled anew there."""
        parts = tuple(getattr(self, each.name) for each in fields(self))
        declared = _declared(_SETS[self.name]) if self.name in _SETS else {}
        if all(declared.get(each.name) is each for each in self.features):
            return _of_names, (type(self), _SETS[self.name], self.name, self.names, *parts[2:])
        return type(self), parts

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"feature {name!r} is not in the set {self.name!r}; {hint}known: {', '.join(self.names)}"


@dataclass(frozen=True)
class _SplitAdjustedSet(FeatureSet):
    left_out: tuple[str, ...] = ()

    def _unknown(self, name: str) -> str:
        if name in self.left_out:
            return (
                f"feature {name!r} is a price level, which split-adjusted prices do not have (they know later splits); "
                "leave it out or use an as-traded source"
            )
        return FeatureSet._unknown(self, name)


def shipped_sets() -> tuple[str, ...]:
    """The names of the sets that ship, in alphabetical order."""
    return tuple(sorted(_SETS))


def feature_set(name: str) -> FeatureSet:
    """The shipped set of that name; an unknown one raises `InvalidInput`, listing those known."""
    if name not in _SETS:
        raise InvalidInput(f"feature set {name!r} is unknown; known: {', '.join(shipped_sets())}")
    return FeatureSet.of(name, import_module(_SETS[name]).FEATURES)


def _declared(module: str) -> dict[str, Feature]:
    return {each.name: each for each in import_module(module).FEATURES}


def _of_names(kind: type[FeatureSet], module: str, name: str, names: Sequence[str], *rest: Any) -> FeatureSet:
    declared = _declared(module)
    return kind(name, tuple(declared[each] for each in names), *rest)
