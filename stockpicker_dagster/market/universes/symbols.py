"""How a ticker is spelled here: one spelling for each share class, whatever a vendor or a fund writes.

Members and price rows have to meet. Which company a ticker stood for at a time is no matter of this file.
"""

import re

from stockpicker_dagster.errors import InvalidInput

_SEPARATORS = re.compile(r"[./ ]+")

_CLASS_SHARES = {
    root + letter: f"{root}-{letter}"
    for root, letters in {
        "AGM": "A",
        "AKO": "AB",
        "BF": "AB",
        "BH": "A",
        "BIO": "B",
        "BRK": "AB",
        "CRD": "AB",
        "CWEN": "A",
        "GEF": "B",
        "GTN": "A",
        "HEI": "A",
        "HVT": "A",
        "LEN": "B",
        "LGF": "AB",
        "MKC": "V",
        "MOG": "AB",
        "PBR": "A",
        "STZ": "B",
        "TAP": "A",
        "UHAL": "B",
        "WSO": "B",
    }.items()
    for letter in letters
}
"""The share classes that New York's exchanges list behind a separator and funds write without one. They cannot be told
by rule: UAA and MA are tickers of class A shares too, and have no separator."""


def normalise_symbol(symbol: str) -> str:
    """The one spelling of a ticker used here: share classes behind a dash, whatever the vendor writes.

    >>> normalise_symbol(" BRK.B"), normalise_symbol("BF/B"), normalise_symbol("BRK B"), normalise_symbol("AAPL")
    ('BRK-B', 'BF-B', 'BRK-B', 'AAPL')
    """
    normalised = _SEPARATORS.sub("-", symbol.strip())
    if not normalised:
        raise InvalidInput(f"the symbol {symbol!r} is empty; write a ticker such as AAPL or BRK-B")
    return normalised


def from_fund_spelling(ticker: str) -> str:
    """The spelling used here of a ticker from a fund's list of holdings, which runs known share classes together.

    >>> from_fund_spelling("BRKB"), from_fund_spelling("BF.B"), from_fund_spelling("UAA")
    ('BRK-B', 'BF-B', 'UAA')
    """
    normalised = normalise_symbol(ticker)
    return _CLASS_SHARES.get(normalised, normalised)
