"""Scores: each file trains or simulates for minutes to hours, and prints its table."""
