"""Features: what is computed from the prices of one stock, for one day, out of nothing later than that day.

`declaration` says what a feature is, `panel` the prices it sees, `computation` runs a set for any days, and `factors`
is the set of academic price-and-volume factors. Stocks are compared with each other in `cross_section`, not here.
"""

from stockpicker_dagster.research.features.computation import anchor, compute, first_needed
from stockpicker_dagster.research.features.declaration import Feature, FeatureSet, feature, feature_set
from stockpicker_dagster.research.features.panel import Panel

__all__ = ["Feature", "FeatureSet", "Panel", "anchor", "compute", "feature", "feature_set", "first_needed"]
