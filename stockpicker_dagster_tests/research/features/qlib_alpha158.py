"""qlib's own Alpha158 on the prices of one stock, without its file format; no test lives here.

The expressions are those of `Alpha158DL`, evaluated by qlib's operators; only where a price comes from is replaced. As
in its files, prices are float32; given as float64, qlib rounds nothing between its operators.
"""

import numpy as np
import pandas as pd


class _Prices:
    """What qlib's expressions ask for prices: the columns of one frame, whatever they ask about."""

    def __init__(self, columns: pd.DataFrame) -> None:
        self._columns = columns

    def feature(self, instrument: str, field: str, start: int, end: int, freq: str) -> pd.Series:
        return self._columns[field.removeprefix("$")]


def qlib_alpha158(prices: pd.DataFrame) -> pd.DataFrame:
    """The 158 features by name, one row for each of `prices`: `open`, `high`, `low`, `close`, `vwap`, `volume`."""
    from qlib.config import C
    from qlib.contrib.data.loader import Alpha158DL
    from qlib.data.cache import H
    from qlib.data.data import FeatureD
    from qlib.data.ops import Operators, register_all_ops
    from qlib.utils import parse_field

    register_all_ops(C)
    FeatureD.register(_Prices(prices.reset_index(drop=True)))
    expressions, names = Alpha158DL.get_feature_config()
    H["f"].clear()
    found = {}
    with np.errstate(all="ignore"):
        for name, expression in zip(names, expressions, strict=True):
            feature = eval(parse_field(expression), {"Operators": Operators})
            found[name] = feature.load("stock", 0, len(prices), "day").to_numpy(dtype=float)
    H["f"].clear()
    return pd.DataFrame(found)
