"""Scores: each command trains or simulates for minutes to hours, and prints its table.

A study's `main` imports late, so that --help and a mistyped flag are answered at once. `runs`,
`frozen_couplings`, `interval_simulation` and `serve_clients` are no commands.
"""
