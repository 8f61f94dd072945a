"""Averaging of the weights of several checkpoints."""
