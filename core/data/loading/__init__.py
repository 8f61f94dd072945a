"""From a table to batches: augmentation, samplers, datasets and loaders."""
