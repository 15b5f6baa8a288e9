"""What the pages and the API show: plain data, read from the lake, the ledger and Dagster's storage.

Nothing here decides or changes anything, and nothing knows how it will look.
"""
