"""Synthetic predictions of findings and a normal class."""

import numpy as np
from scipy.special import expit

from ensemble.fitting.calibrators import Problem


def table(seed: int, rows: int = 200, exclusive: bool = True) -> Problem:
    """Table of three findings and a normal class; with `exclusive`, normal images have no finding,
    and the model predicts the normal class best."""
    random = np.random.default_rng(seed)
    normal = random.random(rows) < 0.5
    findings = random.random((rows, 3)) < (0.4, 0.3, 0.2)
    if exclusive:
        findings[normal] = False
    targets = np.column_stack([findings, normal]).astype(float)
    noise = random.normal(size=targets.shape) * [1.5, 1.5, 1.5, 0.5]
    probabilities = expit(2 * targets - 1 + noise)
    patients = np.array([f"p{row // 2}" for row in range(rows)], dtype=object)
    return Problem(targets, probabilities, ("a", "b", "c", "Normal"), patients, "Normal")
