"""The form that a user fills to describe a strategy: one YAML file, validated before anything runs.

Plain Pydantic, no Dagster: the component, the command line and the console all validate with it. Every field says
what it means, in which unit, and what it is by default; every refusal is one sentence that names the value and what is
allowed. What is not offered here is not built. One file for each part of the form; `strategy` puts them together.
"""

from stockpicker_dagster.strategy_form.backtest import BacktestForm
from stockpicker_dagster.strategy_form.base import CALENDAR, Form, Misfit, check_name, under_home
from stockpicker_dagster.strategy_form.features import FeaturesForm, ScalingForm
from stockpicker_dagster.strategy_form.learning import AlgorithmForm, LabelForm, PeriodsForm, TrainingForm
from stockpicker_dagster.strategy_form.prices import PricesForm
from stockpicker_dagster.strategy_form.reading import COMPONENT_TYPE, load
from stockpicker_dagster.strategy_form.reference import ReferenceForm
from stockpicker_dagster.strategy_form.strategy import StrategyForm, definition_of, features_definition
from stockpicker_dagster.strategy_form.trading import LimitsForm, TradingForm
from stockpicker_dagster.strategy_form.universe import UniverseForm, simulated_universe

__all__ = [
    "CALENDAR",
    "COMPONENT_TYPE",
    "AlgorithmForm",
    "BacktestForm",
    "FeaturesForm",
    "Form",
    "LabelForm",
    "LimitsForm",
    "Misfit",
    "PeriodsForm",
    "PricesForm",
    "ReferenceForm",
    "ScalingForm",
    "StrategyForm",
    "TradingForm",
    "TrainingForm",
    "UniverseForm",
    "check_name",
    "definition_of",
    "features_definition",
    "load",
    "simulated_universe",
    "under_home",
]
