"""Postprocessing as the settings ask for it: calibration, then gating."""

from collections.abc import Callable, Sequence

from ensemble.predict.calibration import find_normal, normal_gating, read_calibration
from ensemble.predict.config import PostprocessConfig
from ensemble.predict.merge import Probabilities


def postprocess_of(
    config: PostprocessConfig, names: Sequence[str]
) -> Callable[[Probabilities], Probabilities]:
    """Calibration and gating, each where asked for, of probabilities (N, C) of classes `names`.

    Raises UserError where the calibration cannot be used, or has nothing for one of them.
    """
    alpha, normal, calibration = config.normal_alpha, config.normal_class, None
    if config.calibration is not None:
        calibration = read_calibration(config.calibration)
        calibration.thresholds(names, gated=False)
        alpha = calibration.normal_alpha if alpha is None else alpha
        normal = normal or calibration.normal_class or ""
    if config.gated:
        normal = find_normal(names, normal)

    def postprocess(probabilities: Probabilities) -> Probabilities:
        if calibration is not None:
            probabilities = calibration.apply(probabilities, names)
        if config.gated:
            power = 0.5 if alpha is None else alpha
            probabilities = normal_gating(probabilities, names, normal, power)
        return probabilities

    return postprocess
