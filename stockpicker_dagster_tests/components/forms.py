"""Small strategies for the tests of this room; no test lives here."""

from datetime import date
from typing import Any

from stockpicker_dagster.strategy_form import StrategyForm

FIXED = {
    "train": [date(2022, 2, 1), date(2022, 4, 29)],
    "validation": [date(2022, 5, 2), date(2022, 5, 31)],
    "test": [date(2022, 6, 1), date(2022, 7, 29)],
}


def strategy_form(**changes: Any) -> StrategyForm:
    """A walk-forward strategy on a simulated market, with `changes`."""
    whole: dict[str, Any] = {
        "owner": "research",
        "universe": {"name": "simulated"},
        "prices": {"start": date(2018, 1, 2), "stocks": 12},
        "periods": {"train_years": 1, "validation_years": 1, "retrain": "quarterly"},
        "backtest": {"long": 3, "short": 3, "simulations": 20},
    }
    return StrategyForm.model_validate({**whole, **changes})
