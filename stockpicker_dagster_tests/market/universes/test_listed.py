"""Universes known by name, and the lists that come with the software."""

from pathlib import Path

import polars as pl
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.universes.listed import GICS_SECTORS, LISTED, LISTED_NAMES, ListedName, packaged_list


@pytest.mark.parametrize("name", [name for name in LISTED_NAMES if LISTED[name].packaged_as])
def test_a_packaged_list_has_a_plausible_size_and_names_its_version(name: ListedName) -> None:
    listed = packaged_list(name)
    least, most = LISTED[name].sizes
    assert least <= listed.members.height <= most
    assert listed.members["symbol"].is_sorted()
    assert "BRK-B" in listed.members["symbol"].to_list()
    assert listed.origin.startswith("pytickersymbols 1.")
    assert set(listed.members["sector"].drop_nulls()) == set(GICS_SECTORS)
    assert listed.members["sector"].null_count() <= 0.05 * listed.members.height


def test_a_universe_without_a_packaged_list_says_how_to_get_one() -> None:
    with pytest.raises(InvalidInput, match=r"Russell 3000.*stockpicker data universe russell3000.*IWV_holdings\.csv"):
        packaged_list("russell3000")


@pytest.mark.real_data
def test_packaged_sectors_are_those_of_the_published_gics_list(real_data: Path) -> None:
    """But for the few that were reclassified between the two lists."""
    published = pl.read_csv(real_data / "universes" / "sp500_gics_2026-08.csv").select(
        symbol=pl.col("Symbol").str.replace(".", "-", literal=True), published="GICS Sector"
    )
    both = packaged_list("sp500").members.drop_nulls("sector").join(published, on="symbol")
    assert both.height > 450
    assert (both["sector"] == both["published"]).mean() > 0.99  # type: ignore[operator]
