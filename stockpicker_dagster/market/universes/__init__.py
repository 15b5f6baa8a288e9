"""Universes: which stocks may be picked on a day, and in which sector they are.

`membership` is the core that everything else makes or narrows; lists known by name are in `listed`, kept in `snapshots`
and renewed in `refresh`; the user's files are read by `member_files`. `dollar_volume` and `liquidity` decide by prices,
point in time; `survivorship` says what a universe's history may owe to the names missing from it.
"""

from stockpicker_dagster.market.universes.dollar_volume import TopRule, top_by_dollar_volume
from stockpicker_dagster.market.universes.liquidity import LiquidityFilter, liquid_members
from stockpicker_dagster.market.universes.listed import LISTED, LISTED_NAMES, ListedName
from stockpicker_dagster.market.universes.member_files import from_file
from stockpicker_dagster.market.universes.membership import (
    SPELLS_SCHEMA,
    TODAYS_SECTORS,
    Universe,
    from_spells,
    from_symbols,
)
from stockpicker_dagster.market.universes.snapshots import keep_first_list, listed_universe
from stockpicker_dagster.market.universes.symbols import normalise_symbol

__all__ = [
    "LISTED",
    "LISTED_NAMES",
    "SPELLS_SCHEMA",
    "TODAYS_SECTORS",
    "LiquidityFilter",
    "ListedName",
    "TopRule",
    "Universe",
    "from_file",
    "from_spells",
    "from_symbols",
    "keep_first_list",
    "liquid_members",
    "listed_universe",
    "normalise_symbol",
    "top_by_dollar_volume",
]
