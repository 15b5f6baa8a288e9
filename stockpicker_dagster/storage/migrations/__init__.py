"""The revisions of the ledger's schema, applied by `storage.database.migrate`."""
