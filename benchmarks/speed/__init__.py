"""Speed and memory benchmarks: each file answers one question by a ratio."""
