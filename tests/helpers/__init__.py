"""Data, runs and processes that several tests use."""
