"""The one base of every error that StockPicker raises on purpose.

A message names the value, what was allowed and the way out. Rooms derive their own classes from `StockPickerError`
where a caller has to tell them apart; commands print the message without a traceback.
"""


class StockPickerError(Exception):
    """Something the user, the data or the market did that the software refuses, said in one sentence."""


class InvalidInput(StockPickerError, ValueError):
    """A value given by the user or found in their data is not one of those allowed."""
