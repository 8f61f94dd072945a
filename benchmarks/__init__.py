"""Benchmarks: speed and memory as ratios (`python -m benchmarks`), and studies of scores."""
