"""Advice before training, from the labels and settings alone."""

from collections.abc import Sequence

import numpy as np

from core.config.loss import LossConfig
from core.config.training import LoaderConfig
from core.data.loading.samplers import fill_evenly
from core.errors import list_first, pluralize

# docs/results.md#rare-findings-on-the-phantom (python -m benchmarks.studies.phantom)
ENOUGH_POSITIVES = 20
"""Positives in training from which csra_db_cas gained AP for a class, against BCE."""
TAIL = 0.01
"""Prevalence below which a class belongs to the tail."""
MANY_DRAWS = 4.0
"""Draws of an image an epoch above which class-aware sampling is reported."""
SHOWN = 4


def advise(
    targets: np.ndarray, class_names: Sequence[str], loader: LoaderConfig, loss: LossConfig
) -> list[str]:
    """Lines of advice for training on `targets` (N, C) of 1, 0 and NaN (unknown); [] without any.

    They name classes that class-aware sampling draws often, the tail's positives against
    `ENOUGH_POSITIVES`, and a loss for calibrated probabilities.
    """
    lines = [
        _describe_draws(targets, class_names, loader),
        _describe_tail(targets, class_names),
        _describe_shifts(loader, loss),
    ]
    return [line for line in lines if line]


def draws_per_image(targets: np.ndarray, loader: LoaderConfig) -> np.ndarray:
    """Class-aware draws an epoch of a positive image in the turns of its class, float64 (C,).

    Each class with positives, and the images without any, has the same number of turns, within the
    limits of `loader` if its sampler is class_aware. 0 for a class without positives.
    """
    positive = targets == 1
    counts = positive.sum(axis=0)
    known = ~np.isnan(targets).all(axis=1)
    images = np.append(counts, (known & ~positive.any(axis=1)).sum())
    given, size, cap = images > 0, len(targets), None
    if loader.sampler == "class_aware":
        size, cap = loader.epoch_size or size, loader.sampler_cap
        size -= round(loader.sampler_mix * size)
    draws = np.zeros(len(images))
    if cap is None:
        draws[given] = size / given.sum() / images[given]
    else:
        draws[given] = fill_evenly(np.floor(cap * images[given]), size) / images[given]
    return draws[:-1]


def _describe_draws(targets: np.ndarray, class_names: Sequence[str], loader: LoaderConfig) -> str:
    draws = draws_per_image(targets, loader)
    often = [c for c in np.argsort(-draws, kind="stable").tolist() if draws[c] > MANY_DRAWS]
    if not often:
        return ""
    named = list_first([f"{class_names[c]} {draws[c]:.0f}" for c in often], SHOWN)
    verb = "draws" if loader.sampler == "class_aware" else "would draw"
    return (
        f"Advice: --sampler class_aware {verb} each image of these classes many times an epoch: "
        f"{named}; --sampler_cap {MANY_DRAWS:g} is a limit."
    )


def _describe_tail(targets: np.ndarray, class_names: Sequence[str]) -> str:
    positives = (targets == 1).sum(axis=0)
    known = (~np.isnan(targets)).sum(axis=0)
    tail = (positives > 0) & (positives < TAIL * known)
    if not tail.any():
        return ""
    few = np.flatnonzero(tail & (positives < ENOUGH_POSITIVES))
    count = pluralize(int(tail.sum()), "class", "classes")
    start = (
        f"Advice: {count} below {TAIL:.0%}; on the phantom csra_db_cas with --loss "
        f"distribution_balanced --sampler class_aware gained AP in 27 of 29 such classes with "
        f"{ENOUGH_POSITIVES} positives or more, and in 23 of 43 with fewer (docs/results.md)"
    )
    if not len(few):
        return f"{start}; each here has {ENOUGH_POSITIVES} or more."
    few = few[np.argsort(positives[few], kind="stable")]
    named = list_first([f"{class_names[c]} ({positives[c]})" for c in few.tolist()], SHOWN)
    return f"{start}; here with fewer: {named}."


def _describe_shifts(loader: LoaderConfig, loss: LossConfig) -> str:
    weighted, sampled = loss.pos_weight and loss.loss == "bce", loader.sampler != "uniform"
    shifts = {
        f"--loss {loss.loss}": loss.loss != "bce",
        "--pos_weight": weighted,
        f"--logit_adjust {loss.logit_adjust:g}": loss.logit_adjust,
        f"--sampler {loader.sampler}": sampled,
    }
    found = [flag for flag, shifted in shifts.items() if shifted]
    if not found:
        return ""
    instead = {
        "--loss bce": loss.loss != "bce" or weighted,
        "--no-pos_weight": loss.pos_weight,
        "--logit_adjust 0": loss.logit_adjust,
        "--sampler uniform": sampled,
    }
    verb = "shift" if len(found) > 1 else "shifts"
    return (
        f"Advice: {', '.join(found)} {verb} probabilities: where they matter, train with "
        f"{' '.join(flag for flag, needed in instead.items() if needed)} or run ensemble.calibrate."
    )
