"""Strategies side by side, as `stockpicker compare` has them, with what each would have earned in one plot.

To compare counts every one of them as looked at, like everywhere else.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date

import numpy as np

from stockpicker_dagster.console.views.beside import Beside
from stockpicker_dagster.console.views.desk import Desk, NotFound
from stockpicker_dagster.console.views.remembered import fingerprint
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.evaluation.comparison import Comparison, compare
from stockpicker_dagster.evaluation.stored_days import stored_backtest

MOST = 8
"""More columns than this fit no screen."""


@dataclass(frozen=True)
class SideBySide:
    """A comparison with the wealth of each strategy, from 1 before the first session, one value a session."""

    comparison: Comparison
    sessions: Sequence[date]
    wealth: dict[str, list[float]]


class Comparisons:
    """Comparisons under way and made."""

    def __init__(self, desk: Desk, worker: ThreadPoolExecutor) -> None:
        self.desk = desk
        self._made: Beside[SideBySide] = Beside(worker)

    def get(self, names: Sequence[str]) -> SideBySide | None:
        """The strategies `names` side by side; None while it is being made.

        Raises `NotFound` for an unknown one, `InvalidInput` for fewer than two, for too many, or for what
        `evaluation.comparison.compare` refuses.
        """
        chosen = tuple(dict.fromkeys(names))
        if not 2 <= len(chosen) <= MOST:
            raise InvalidInput(f"choose from 2 to {MOST} different strategies to compare, not {len(chosen)}")
        digests = tuple(self.desk.form(name).trial_digest for name in chosen)
        state = (digests, fingerprint(self.desk.lake, *(f"{name}/backtest_metrics" for name in chosen)))
        return self._made.get(chosen, state, lambda: self._compare(chosen))

    def comparable(self) -> list[str]:
        """The strategies that have a back-test."""
        return [name for name in sorted(self.desk.forms()) if self.desk.days(f"{name}/backtest_metrics")]

    def _compare(self, names: Sequence[str]) -> SideBySide:
        forms = {name: self.desk.form(name) for name in names}
        found = compare(forms, self.desk.deployment)
        days = {
            name: stored_backtest(name, form, self.desk.lake, found.first, found.last) for name, form in forms.items()
        }
        wealth = {
            name: np.cumprod(1.0 + part["net_return"].to_numpy()).round(6).tolist() for name, part in days.items()
        }
        return SideBySide(found, next(iter(days.values()))["date"].to_list(), wealth)


def chosen_names(texts: Sequence[str]) -> list[str]:
    """Names from an address, each by itself or several with commas between them. Raises `NotFound` for a long list."""
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    if len(names) > 100:
        raise NotFound(f"{len(names)} strategies were named; choose up to {MOST}")
    return names
