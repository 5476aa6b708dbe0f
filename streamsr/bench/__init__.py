"""Bench: how late a picture really is, read back from what a view shows."""
