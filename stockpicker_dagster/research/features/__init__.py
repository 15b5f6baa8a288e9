"""Feature sets."""
