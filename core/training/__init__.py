"""Training: loop, optimizer, moving average, resume, best checkpoint, and the end of a run."""
