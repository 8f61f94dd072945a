"""Trackers of a training: TensorBoard, Weights & Biases, MLflow."""
