"""Measuring methods on pictures whose truth is known, and showing what came out."""
