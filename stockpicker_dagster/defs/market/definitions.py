"""Finds every strategy in the project and loads the prices and features that they share."""

import dagster as dg

from stockpicker_dagster.components.strategy import StockPickerStrategy
from stockpicker_dagster.defs.market.assets import market_definitions


@dg.definitions
def market(context: dg.ComponentLoadContext) -> dg.Definitions:
    """Prices and features of every source and feature set that some strategy uses, each exactly once."""
    strategies = context.component_tree.get_all_components(StockPickerStrategy)
    return market_definitions({strategy.name: strategy.form for strategy in strategies})
