"""Finds every strategy in the project and loads the prices, features and universe lists that they share."""

import dagster as dg

from stockpicker_dagster.components.strategy import StockPickerStrategy
from stockpicker_dagster.defs.market.assets import market_definitions
from stockpicker_dagster.defs.market.universes import universe_definitions


@dg.definitions
def market(context: dg.ComponentLoadContext) -> dg.Definitions:
    """Every price source, feature set and named universe that some strategy uses, each exactly once."""
    strategies = context.component_tree.get_all_components(StockPickerStrategy)
    forms = {strategy.name: strategy.form for strategy in strategies}
    return dg.Definitions.merge(market_definitions(forms), universe_definitions(forms))
