"""Studies of scores: each command trains or simulates for minutes to hours, and prints a table.

A study's `main` imports late for a fast --help. `runs`, `coverage_scenarios`, `frozen_couplings`,
`interval_simulation` and `serve_clients` are not commands.
"""
