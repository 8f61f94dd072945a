"""Postprocessing of merged probabilities: calibration by class, then normal gating.

`calibration.json`, written by `python -m ensemble.calibrate`, holds both:

{"kind": "calibration", "format_version": 1,
 "classes": {NAME: {"method": ..., its parameters, "threshold": ..., "threshold_gated": ...}},
 "normal_class": NAME or null, "normal_alpha": ..., "too_rare": [NAME, ...], "made_from": {...}}
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from scipy.special import expit

from core.errors import UserError, list_first, suggest_name
from ensemble.predict.config import PostprocessConfig
from ensemble.predict.ensemble_json import (
    Finite,
    NotNegative,
    Positive,
    check_name,
    convert,
    quoted,
    read_document,
    refuse,
    write_document,
)

FloatArray = NDArray[np.float64]

NORMAL_NAMES = ("Normal", "No Finding", "No_Finding")
# probabilities of 0 and 1 have no logit
SMALLEST = 1e-6
Threshold = Annotated[float, Meta(gt=0, le=1)]
Probabilities = Annotated[list[Annotated[float, Meta(ge=0, le=1)]], Meta(min_length=1)]


def find_normal(class_names: Sequence[str], requested: str = "") -> str:
    """The requested class, else the first of NORMAL_NAMES. Raises UserError if it is missing."""
    if requested:
        if requested not in class_names:
            raise UserError(
                f"--normal_class '{requested}' is not a class{suggest_name(requested, class_names)}"
            )
        return requested
    if found := [name for name in NORMAL_NAMES if name in class_names]:
        return found[0]
    raise UserError(
        f"no class is named {', '.join(NORMAL_NAMES)}; the classes are "
        f"{list_first(list(class_names), 12)}: name the normal class with --normal_class"
    )


def normal_gating(
    probabilities: NDArray[Any], class_names: Sequence[str], normal: str, alpha: float
) -> NDArray[Any]:
    """p (1 - p_normal)^alpha for every class but `normal`, (N, C) → (N, C).

    Raises ValueError if `normal` is not one of `class_names`.
    """
    column = list(class_names).index(normal)
    gated = probabilities * (1 - probabilities[:, [column]]) ** alpha
    gated[:, column] = probabilities[:, column]
    return gated


def logit(probabilities: NDArray[Any]) -> FloatArray:
    """log(p / (1 - p)) of probabilities, any shape, clipped to [1e-6, 1 - 1e-6]; float64."""
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), SMALLEST, 1 - SMALLEST)
    return np.log(clipped) - np.log1p(-clipped)


class Identity(msgspec.Struct, frozen=True, kw_only=True, tag_field="method", tag="identity"):
    """Identity map, with the thresholds of best F1 for calibrated and for gated probabilities.

    "Positive" is p >= threshold; None for a class without positives or without negatives.
    """

    threshold: Threshold | None = None
    threshold_gated: Threshold | None = None

    def apply(self, probabilities: NDArray[Any]) -> FloatArray:
        """Calibrated probabilities, (N,) → (N,) float64."""
        return np.asarray(probabilities, dtype=np.float64)


class Temperature(Identity, frozen=True, tag="temperature"):
    """sigmoid(logit(p) / T), Guo et al. 2017."""

    temperature: Positive

    def apply(self, probabilities: NDArray[Any]) -> FloatArray:
        return expit(logit(probabilities) / self.temperature)


class Platt(Identity, frozen=True, tag="platt"):
    """sigmoid(a logit(p) + b), Platt 1999; a is `slope`, b is `offset`."""

    slope: Positive
    offset: Finite

    def apply(self, probabilities: NDArray[Any]) -> FloatArray:
        return expit(self.slope * logit(probabilities) + self.offset)


class Isotonic(Identity, frozen=True, tag="isotonic"):
    """Linear interpolation between knots, constant outside."""

    knots: Probabilities
    values: Probabilities

    def __post_init__(self) -> None:
        across, up = np.diff(self.knots), np.diff(self.values)
        if len(across) != len(up) or (across <= 0).any() or (up < 0).any():
            raise ValueError("knots must increase and values must not decrease, one a knot")

    def apply(self, probabilities: NDArray[Any]) -> FloatArray:
        return np.interp(probabilities, self.knots, self.values)


class Calibration(msgspec.Struct, frozen=True):
    """Content of a `calibration.json`: a map for each class, then gating by the normal class.

    `classes` has an Identity, Temperature, Platt or Isotonic by name of the class; gating is
    `normal_gating` with `normal_alpha`, 0 for none. `too_rare` are classes with too few positive
    or negative patients for a map.
    """

    classes: Annotated[dict[str, Any], Meta(min_length=1)]
    normal_class: str | None
    normal_alpha: NotNegative
    too_rare: list[str] = []

    def apply(self, probabilities: NDArray[Any], class_names: Sequence[str]) -> FloatArray:
        """Calibrated probabilities (N, C) before gating. Raises UserError for an unknown class."""
        self.check_known(class_names)
        pairs = zip(class_names, probabilities.T, strict=True)
        with np.errstate(over="ignore"):
            return np.stack([self.classes[name].apply(column) for name, column in pairs], axis=1)

    def gate(self, calibrated: FloatArray, class_names: Sequence[str]) -> FloatArray:
        """Gate calibrated probabilities (N, C) by the normal class with the fitted alpha.

        Raises ValueError as `normal_gating` does.
        """
        if self.normal_class is None or self.normal_alpha == 0:
            return calibrated
        return normal_gating(calibrated, class_names, self.normal_class, self.normal_alpha)

    def thresholds(self, class_names: Sequence[str], *, gated: bool) -> FloatArray:
        """Thresholds (C,) in (0, 1], NaN for none: `gated` ones are for gated probabilities.

        Raises UserError for an unknown class.
        """
        self.check_known(class_names)
        key = "threshold_gated" if gated else "threshold"
        return np.array([getattr(self.classes[name], key) for name in class_names], dtype=float)

    def check_known(self, class_names: Sequence[str]) -> None:
        """Raise UserError with the classes that the calibration lacks."""
        if missing := [name for name in class_names if name not in self.classes]:
            raise UserError(
                f"the calibration lacks {len(missing):,} of the {len(class_names):,} classes "
                f"({list_first(missing)}); it has {list_first(list(self.classes), 12)}"
            )


def write_calibration(path: Path, calibration: Calibration, made_from: Mapping[str, Any]) -> None:
    """Write `calibration.json` with its origin `made_from`, whole or not at all.

    Raises UserError if it cannot be written.
    """
    content = msgspec.to_builtins(calibration) | {"made_from": dict(made_from)}
    write_document(path, "calibration", content)


def read_calibration(path: Path) -> Calibration:
    """Read a `calibration.json`. Raises UserError if it is invalid."""
    found: Calibration = convert(path, "it", read_document(path, "calibration"), Calibration)
    check_name(path, *found.classes)
    kinds = Identity | Temperature | Platt | Isotonic
    for name, entry in found.classes.items():
        what = f"the class {quoted(name)}"
        found.classes[name] = convert(path, what, entry, kinds)
        for key in ("threshold", "threshold_gated"):
            if key not in entry:
                refuse(path, f"{what} is invalid: missing required field `{key}`")
    normal, alpha = found.normal_class, found.normal_alpha
    if normal is not None and normal not in found.classes:
        refuse(path, '"normal_class" is not one of its classes')
    if normal is None and alpha > 0:
        refuse(path, f'"normal_alpha" is {alpha:g}, without a normal class')
    return found


def make_postprocess(
    config: PostprocessConfig, names: Sequence[str]
) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Function for calibration and gating, if set, of probabilities (N, C) of classes `names`.

    Raises UserError if the calibration is invalid or lacks a class, or gating has no normal class.
    """
    alpha, normal, calibration = 0.5, config.normal_class, None
    if config.calibration is not None:
        calibration = read_calibration(config.calibration)
        calibration.check_known(names)
        alpha, normal = calibration.normal_alpha, normal or calibration.normal_class or ""
    if config.normal_alpha is not None:
        alpha = config.normal_alpha
    if config.gated:
        normal = find_normal(names, normal)

    def postprocess(probabilities: NDArray[Any]) -> NDArray[Any]:
        if calibration is not None:
            probabilities = calibration.apply(probabilities, names)
        return normal_gating(probabilities, names, normal, alpha) if config.gated else probabilities

    return postprocess
