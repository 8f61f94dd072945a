"""Reference losses by their papers, entry by entry in float64, independent of the project."""

from collections.abc import Sequence
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
# what an entry costs as a positive and as a negative
Costs = tuple[float, float]


def softplus(x: float) -> float:
    """log(1 + e^x) = -log sigmoid(-x)."""
    return float(np.logaddexp(0, x))


def sigmoid(z: float) -> float:
    """1 / (1 + e^-z) to full relative precision."""
    return exp(-softplus(-z))


def log_odds(positives: ArrayLike, images: ArrayLike) -> Array:
    """log(f / (1-f)), the counts clipped to [1/2, N - 1/2]."""
    n, known = np.broadcast_arrays(np.asarray(positives, float), np.asarray(images, float))
    clipped = np.clip(n, 0.5, known - 0.5)
    return np.log(clipped / (known - clipped))


def class_weights(positives: Sequence[float], beta: float = 0.9999) -> list[float]:
    """(1-beta) / (1-beta^n), mean 1 over classes with positives; 1 for the others."""
    raw = [(1 - beta) / (1 - beta**n) if n else None for n in positives]
    present = [weight for weight in raw if weight is not None]
    return [1.0 if weight is None else weight * len(present) / sum(present) for weight in raw]


def asl(z: float, gamma_neg: float = 4, gamma_pos: float = 0, margin: float = 0.05) -> Costs:
    """Ridnik 2021, eq. 4 to 7."""
    shifted = max(sigmoid(z) - margin, 0)
    log_absent = -softplus(z) if margin == 0 else log(1 - shifted)
    return sigmoid(-z) ** gamma_pos * softplus(-z), -(shifted**gamma_neg) * log_absent


def robust_asl(z: float, gamma_neg: float = 4, gamma_pos: float = 0, margin: float = 0.05) -> Costs:
    """Park 2023."""
    present, absent = sigmoid(z), sigmoid(-z)
    positive = absent**gamma_pos * (softplus(-z) - absent + 1.25 * absent**2)
    q = 1 - max(present - margin, 0)
    return positive, (1.5 - present) * present**2 * (1.5 - q) * asl(z, gamma_neg, 0, margin)[1]


def focal(z: float, gamma: float = 2, alpha: float = 0.25) -> Costs:
    """Lin 2017, eq. 5."""
    costs = sigmoid(-z) ** gamma * softplus(-z), sigmoid(z) ** gamma * softplus(z)
    return costs if alpha < 0 else (alpha * costs[0], (1 - alpha) * costs[1])


def margins(positives: Sequence[float], max_margin: float = 0.5) -> list[float]:
    """Cao 2019: m_c in proportion to n_c^(-1/4), at most max_margin."""
    rarest = min((n for n in positives if n), default=1)
    return [max_margin * (rarest / n) ** 0.25 if n else max_margin for n in positives]


def rebalancing(
    row: Sequence[float], counts: Sequence[float], alpha: float, beta: float, mu: float
) -> list[float]:
    """Weights a + sigmoid(b (r - mu)) of one image's entries (Wu 2020, eq. 5 to 7); n from 1/2."""
    chances = [1 / max(n, 0.5) for n in counts]
    at_image = sum(chance for y, chance in zip(row, chances, strict=True) if y > 0.5)
    if at_image == 0:
        return [alpha + 1] * len(counts)
    return [alpha + sigmoid(beta * (chance / at_image - mu)) for chance in chances]


def costs_of_image(
    name: str, logits: Array, row: Array, positives: Sequence[float], images: Array, **o: Any
) -> list[Costs]:
    """Cost of each entry of one image, for losses with independent entries."""
    match name:
        case "asl":
            return [asl(z, **o) for z in logits]
        case "robust_asl":
            return [robust_asl(z, **o) for z in logits]
        case "bce":
            n = np.array(positives, float)
            ratio = np.clip((images - n) / np.maximum(n, 0.5), 1, 10)
            weights = ratio if o.get("pos_weight") else np.ones_like(n)
            pairs = zip(logits, weights, strict=True)
            return [(w * softplus(-z), softplus(z)) for z, w in pairs]
        case "focal":
            return [focal(z, **o) for z in logits]
        case "weighted_bce" | "cb_focal":
            gamma = 0 if name == "weighted_bce" else o.get("gamma", 2)
            weights = np.array(class_weights(positives, o.get("beta", 0.9999)))
            entries = np.array([focal(z, gamma, -1) for z in logits])
            return [(p, n) for p, n in weights[:, None] * entries]
        case "ldam" | "ldam_drw":
            scale = o.get("scale", 1)
            pairs = zip(logits, margins(positives, o.get("max_margin", 0.5)), strict=True)
            return [(softplus(-scale * (z - m)), softplus(scale * z)) for z, m in pairs]
        case "distribution_balanced":
            return _distribution_balanced(logits, row, positives, images, **o)
    raise AssertionError(name)


def _distribution_balanced(
    logits: Array,
    row: Array,
    positives: Sequence[float],
    images: Array,
    alpha: float = 0.1,
    beta: float = 10,
    mu: float = 0.2,
    neg_scale: float = 2,
    kappa: float = 0.05,
    gamma: float = 2,
) -> list[Costs]:
    """Wu 2020, eq. 5 to 9, with the focal factor of the logit that enters the entry."""
    weights = rebalancing(list(row), positives, alpha, beta, mu)
    frequency = np.clip(positives, 0.5, images - 0.5) / images
    shifted = logits - kappa * np.log(1 / frequency - 1)
    return [
        (w * focal(z, gamma, -1)[0], w * focal(neg_scale * z, gamma, -1)[1] / neg_scale)
        for z, w in zip(shifted, weights, strict=True)
    ]


def log_sum(values: Array, parts: Array) -> float:
    """log sum of parts e^values; minus infinity for nothing."""
    used = parts > 0
    return float(np.logaddexp.reduce(values[used] + np.log(parts[used])))


def two_way(
    logits: Array, targets: Array, weights: Sequence[float], temperature: float = 4
) -> float:
    """Kobayashi 2023: softplus(LSE_neg(z) + T LSE_pos(-z/T)) along images, then along classes."""
    total = 0.0
    for along_images in (True, False):
        terms = []
        both = (logits, targets) if along_images else (logits.T, targets.T)
        for index, (z, y) in enumerate(zip(*both, strict=True)):
            if not (y > 0.5).any():
                continue
            weight = np.mean(np.array(weights)[y > 0.5]) if along_images else weights[index]
            z, y = z[~np.isnan(y)], y[~np.isnan(y)]
            gap = log_sum(z, 1 - y) + temperature * log_sum(-z / temperature, y)
            terms.append(weight * softplus(gap))
        total += sum(terms) / max(len(terms), 1)
    return total


def truth(
    name: str,
    logits: ArrayLike,
    targets: ArrayLike,
    positives: Sequence[float],
    images: ArrayLike,
    *,
    logit_adjust: float = 0,
    label_smooth: float = 0,
    reweighted: bool = False,
    **options: Any,
) -> float:
    """The loss `name` of logits and targets (B, C); `reweighted` from drw_epoch on."""
    z = np.asarray(logits, float) + logit_adjust * log_odds(positives, images)
    y = np.asarray(targets, float) * (1 - label_smooth) + label_smooth / 2
    weights = class_weights(positives) if reweighted else [1.0] * len(positives)
    if name == "two_way":
        return two_way(z, y, weights, **options)
    entries = []
    for row_logits, row in zip(z, y, strict=True):
        costs = costs_of_image(
            name, row_logits, row, positives, np.asarray(images, float), **options
        )
        for part, (positive, negative), weight in zip(row, costs, weights, strict=True):
            if not np.isnan(part):
                entry = part * positive + (1 - part) * negative
                entries.append(weight * entry if part > 0.5 else entry)
    return sum(entries) / len(entries)
