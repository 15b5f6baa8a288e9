"""Strategies side by side: one asset for each universe that at least two strategies rank.

It stores nothing: what it shows follows from stored days. What it counts as trials is `evaluation.comparison`.
"""

import re
from collections.abc import Mapping

import dagster as dg

from stockpicker_dagster.components.strategy import StockPickerStrategy
from stockpicker_dagster.evaluation.comparison import as_markdown, compare, overfitting_sentence
from stockpicker_dagster.evaluation.trials import universe_of
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.strategy_form import StrategyForm


@dg.definitions
def comparison(context: dg.ComponentLoadContext) -> dg.Definitions:
    """A comparison for each universe that several strategies share."""
    strategies = context.component_tree.get_all_components(StockPickerStrategy)
    return comparison_definitions({strategy.name: strategy.form for strategy in strategies})


def comparison_definitions(forms: Mapping[str, StrategyForm]) -> dg.Definitions:
    """The assets for these strategies; none where no universe is shared."""
    by_universe: dict[str, dict[str, StrategyForm]] = {}
    for name, form in sorted(forms.items()):
        by_universe.setdefault(universe_of(form), {})[name] = form
    return dg.Definitions(assets=[_comparison(universe, own) for universe, own in by_universe.items() if len(own) > 1])


def _comparison(universe: str, forms: Mapping[str, StrategyForm]) -> dg.AssetsDefinition:
    @dg.asset(
        key=dg.AssetKey(["comparison", re.sub(r"\W+", "_", universe)]),
        group_name="comparison",
        description=f"Strategies on the universe {universe} side by side on the sessions that all of them have; each "
        "is counted as a trial.",
        deps=[dg.AssetDep([name, "backtest_metrics"], partition_mapping=dg.AllPartitionMapping()) for name in forms],
    )
    def side_by_side(deployment: Deployment) -> dg.MaterializeResult:
        found = compare(forms, deployment)
        return dg.MaterializeResult(
            metadata={
                "span": f"{found.first} to {found.last}",
                "sessions": found.sessions,
                "caveat": "; ".join(found.caveats) or "none",
                "figures": dg.MetadataValue.md(as_markdown(found)),
                "overfitting": overfitting_sentence(found),
                **{
                    f"verdict_of_{each.name}": each.judgement.verdict.reason
                    if each.judgement.verdict
                    else f"none: {each.judgement.no_verdict}"
                    for each in found.strategies
                },
            }
        )

    return side_by_side
