"""The long-short back-test."""
