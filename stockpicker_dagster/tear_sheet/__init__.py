"""The tear sheet: one page about one strategy's stored back-test, that needs nothing beside itself."""
