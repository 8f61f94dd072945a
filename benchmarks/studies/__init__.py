"""Studies of scores: each command trains or simulates for minutes to hours, and prints a table.

A study's `main` imports late for a fast --help. `runs`, `paired` and
`plain_loop` are not commands.
"""
