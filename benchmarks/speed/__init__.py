"""Speed and memory: each file answers one question by a ratio."""
