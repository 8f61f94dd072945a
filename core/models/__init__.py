"""Models: backbone, checkpoint, loading, initial weights, prediction."""
