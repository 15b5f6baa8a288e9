"""Fundamentals, point in time: what companies reported, and from which session on it was known."""
