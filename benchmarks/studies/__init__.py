"""Scores: each command trains or simulates for minutes to hours, and prints its table.

Files that are no command hold what the commands, or the tests, share.
"""
