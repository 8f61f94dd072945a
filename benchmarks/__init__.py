"""Speed by ratios (`python -m benchmarks`) and scores by studies."""
