"""Each file answers one question by a ratio; `python -m benchmarks` prints them in one table."""
