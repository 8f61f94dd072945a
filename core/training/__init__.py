"""Training: loop, optimizer, moving average, resume state, checkpoints, final report."""
