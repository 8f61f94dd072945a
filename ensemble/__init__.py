"""From checkpoints to predictions, and all that follows."""
