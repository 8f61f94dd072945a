"""Penalty of the label couplings, and recovery of planted ones."""
