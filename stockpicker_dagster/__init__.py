"""StockPicker: a Dagster asset platform for cross-sectional stock picking.

Nothing heavy is imported here, so that whatever only needs the ledger or a model never loads Dagster.
"""

__version__ = "0.1.0"
