"""Processes: Fabric, ranks, signals, lost workers, and the record of the environment."""
