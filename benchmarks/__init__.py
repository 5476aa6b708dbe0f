"""Benchmarks: one question a file, run as ``python -m benchmarks.<question>``; results lie in ``results``."""
