"""Spellings of tickers: one for each share class."""

import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.universes.symbols import from_fund_spelling, normalise_symbol


@pytest.mark.parametrize("written", ["BRK.B", "BRK-B", "BRK/B", "BRK B", " BRK.B "])
def test_a_share_class_has_one_spelling_whatever_the_vendor_writes(written: str) -> None:
    assert normalise_symbol(written) == "BRK-B"


def test_only_known_share_classes_of_a_fund_are_taken_apart() -> None:
    """A rule by the letter would make other companies of MA, UAA and CVNA."""
    fund = ["BRKB", "MOGA", "BF.B", "BFA", "HEIA", "MA", "UAA", "CVNA", "GOOGL"]
    ours = ["BRK-B", "MOG-A", "BF-B", "BF-A", "HEI-A", "MA", "UAA", "CVNA", "GOOGL"]
    assert [from_fund_spelling(ticker) for ticker in fund] == ours


def test_an_empty_symbol_is_refused() -> None:
    with pytest.raises(InvalidInput, match="is empty"):
        normalise_symbol("  ")
