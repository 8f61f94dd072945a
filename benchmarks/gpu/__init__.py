"""Measurements of `python -m benchmarks gpu`."""
