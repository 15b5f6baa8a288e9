"""The strategy component: one `defs.yaml` becomes that strategy's assets, checks, jobs, schedules and sensor.

The form is `strategy_form.StrategyForm`; what the assets do is in `strategy_assets`, when they run in `strategy_runs`.
"""

import dagster as dg
from pydantic import BaseModel

from stockpicker_dagster.components.strategy_assets import strategy_assets
from stockpicker_dagster.components.strategy_runs import strategy_runs
from stockpicker_dagster.strategy_form import StrategyForm, check_name


class StockPickerStrategy(dg.Component):
    """A cross-sectional stock-picking strategy, from a universe to a proposed rebalance."""

    def __init__(self, name: str, form: StrategyForm) -> None:
        self.name = name
        self.form = form

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return StrategyForm

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "StockPickerStrategy":
        """The component of the folder that holds the YAML; the folder's name is the strategy's."""
        assert isinstance(attributes, StrategyForm)
        check_name(context.path.name, "a strategy's folder")
        return cls(context.path.name, attributes)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return strategy_definitions(self.name, self.form)


def strategy_definitions(name: str, form: StrategyForm) -> dg.Definitions:
    """Everything that belongs to one strategy alone."""
    return dg.Definitions.merge(
        dg.Definitions(assets=strategy_assets(name, form)),
        strategy_runs(name, form),
    )
