"""Scores: each command trains or simulates for minutes to hours, and prints its table.

`runs`, `frozen_couplings`, `interval_simulation` and `serve_clients` are no commands.
"""
