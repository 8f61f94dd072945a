"""Targets and probabilities of long-tailed classes, for tests of metrics."""

import numpy as np

NAMES = ["Infiltration", "Effusion", "Nodule", "Hernia"]


def table(
    images: int = 400,
    prevalences: tuple[float, ...] = (0.3, 0.12, 0.05, 0.02),
    seed: int = 0,
    levels: int | None = None,
    signal: float = 1.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities of decreasing prevalence; `levels` rounds scores into ties."""
    random = np.random.default_rng(seed)
    targets = (random.random((images, len(prevalences))) < prevalences).astype(float)
    logits = random.normal(size=targets.shape) + signal * targets
    probabilities = 1 / (1 + np.exp(-logits + 1))
    if levels is not None:
        probabilities = np.round(probabilities * levels) / levels
    return targets, probabilities
