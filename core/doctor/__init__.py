"""`python -m core.doctor`: check computer, data, run folders and checkpoints."""
