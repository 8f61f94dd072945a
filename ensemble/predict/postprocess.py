"""Postprocessing as the settings ask for it: calibration, then gating."""

from collections.abc import Callable, Sequence
from functools import partial

from ensemble.predict.calibration import find_normal, normal_gating, read_calibration
from ensemble.predict.config import Config
from ensemble.predict.merge import Probabilities


def postprocess_of(
    config: Config, names: Sequence[str]
) -> Callable[[Probabilities], Probabilities] | None:
    """Calibration and gating of classes `names` as asked for, one after the other.

    Raises UserError where the calibration cannot be used, or has nothing for one of them.
    """
    steps: list[Callable[[Probabilities], Probabilities]] = []
    alpha, normal = config.normal_alpha, config.normal_class
    if config.calibration is not None:
        calibration = read_calibration(config.calibration)
        calibration.thresholds(names, gated=False)
        steps.append(partial(calibration.apply, class_names=names))
        alpha = calibration.normal_alpha if alpha is None else alpha
        normal = normal or calibration.normal_class or ""
    if config.postprocess == "normal_gating":
        alpha = 0.5 if alpha is None else alpha
        normal = find_normal(names, normal)
        steps.append(partial(normal_gating, class_names=names, normal=normal, alpha=alpha))
    if not steps:
        return None

    def every(probabilities: Probabilities) -> Probabilities:
        for step in steps:
            probabilities = step(probabilities)
        return probabilities

    return every
