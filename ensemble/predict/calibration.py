"""What may be done to probabilities after the model: calibration by class, and normal gating.

Calibration comes first and gating after it. `calibration.json`, made by
`python -m ensemble.calibrate` on out-of-fold predictions, holds both:

{"kind": "calibration", "format_version": 1,
 "classes": {NAME: {"method": ..., its parameters, "threshold": ..., "threshold_gated": ...}},
 "normal_class": NAME or null, "normal_alpha": ..., "made_from": {...}}
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from core.errors import UserError, nearest, some
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
Probability = Annotated[float, Meta(ge=0, le=1)]


class _Identity(msgspec.Struct, tag_field="method", tag="identity"):
    threshold: Threshold | None
    threshold_gated: Threshold | None


class _Temperature(_Identity, tag="temperature"):
    temperature: Positive


class _Platt(_Identity, tag="platt"):
    slope: Positive
    offset: Finite


class _Isotonic(_Identity, tag="isotonic"):
    knots: Annotated[list[Probability], Meta(min_length=1)]
    values: Annotated[list[Probability], Meta(min_length=1)]


_Map = _Identity | _Temperature | _Platt | _Isotonic


class _Document(msgspec.Struct):
    classes: Annotated[dict[str, Any], Meta(min_length=1)]
    normal_class: str | None
    normal_alpha: NotNegative


def find_normal(class_names: Sequence[str], requested: str = "") -> str:
    """The class that means "nothing found": the requested one, else the first of NORMAL_NAMES.

    Raises UserError where it is not there.
    """
    if requested:
        if requested not in class_names:
            raise UserError(f"there is no class '{requested}'{nearest(requested, class_names)}")
        return requested
    for name in NORMAL_NAMES:
        if name in class_names:
            return name
    raise UserError(
        f"none of the classes is called {', '.join(NORMAL_NAMES)} (they are "
        f"{some(list(class_names), 12)}): name the normal one with --normal_class"
    )


def normal_gating(
    probabilities: NDArray[Any], class_names: Sequence[str], normal: str, alpha: float
) -> NDArray[Any]:
    """p_abnormal (1 - p_normal)^alpha for every class but `normal`, which stays: (N, C) → (N, C).

    alpha 0 is the identity. Raises UserError where alpha is negative or not finite, or `normal` is
    none of the classes.
    """
    if not 0 <= alpha < math.inf:
        raise UserError(f"--normal_alpha must be at least 0 and finite, not {alpha}")
    column = list(class_names).index(find_normal(class_names, normal))
    gated = probabilities * (1 - probabilities[:, [column]]) ** alpha
    gated[:, column] = probabilities[:, column]
    return gated


def logit(probabilities: NDArray[Any]) -> FloatArray:
    """log(p / (1 - p)) of probabilities clipped to [1e-6, 1 - 1e-6]."""
    clipped = np.clip(np.asarray(probabilities, dtype=np.float64), SMALLEST, 1 - SMALLEST)
    return np.log(clipped) - np.log1p(-clipped)


def sigmoid(logits: FloatArray) -> FloatArray:
    """1 / (1 + exp(-z)), without a warning where it is 0."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))


@dataclass(frozen=True)
class ClassCalibration:
    """The map of one class and its thresholds.

    `parameters` by `method`: identity none; temperature: temperature T, sigmoid(logit(p) / T);
    platt: slope a and offset b, sigmoid(a logit(p) + b); isotonic: knots x and values y, linear in
    between and constant outside. The thresholds have the best F1 on the rows used for the fit, on
    calibrated probabilities and on those that are gated as well; NaN where there is none because
    the class had no positive or no negative. "Positive" is probability >= threshold.
    """

    method: str
    parameters: Mapping[str, Any]
    threshold: float = math.nan
    threshold_gated: float = math.nan

    def apply(self, probabilities: NDArray[Any]) -> FloatArray:
        """Calibrated probabilities, (N,) → (N,) float64."""
        given = self.parameters
        if self.method == "isotonic":
            return np.interp(probabilities, given["knots"], given["values"])
        with np.errstate(over="ignore"):
            if self.method == "temperature":
                return sigmoid(logit(probabilities) / given["temperature"])
            if self.method == "platt":
                return sigmoid(given["slope"] * logit(probabilities) + given["offset"])
        return np.asarray(probabilities, dtype=np.float64)


@dataclass(frozen=True)
class Calibration:
    """What `calibration.json` says. Normal gating is for probabilities that are calibrated."""

    classes: Mapping[str, ClassCalibration]
    normal_class: str | None
    normal_alpha: float

    def apply(self, probabilities: NDArray[Any], class_names: Sequence[str]) -> FloatArray:
        """Calibrated, not gated, probabilities (N, C) float64 of classes matched by name.

        Raises UserError that names the classes that have no map.
        """
        self._check_known(class_names)
        columns = [
            self.classes[name].apply(probabilities[:, column])
            for column, name in enumerate(class_names)
        ]
        return np.stack(columns, axis=1)

    def gate(self, calibrated: FloatArray, class_names: Sequence[str]) -> FloatArray:
        """Calibrated probabilities (N, C) gated with the fitted alpha; as they are without one."""
        if self.normal_class is None or self.normal_alpha == 0:
            return calibrated
        return normal_gating(calibrated, class_names, self.normal_class, self.normal_alpha)

    def thresholds(self, class_names: Sequence[str], *, gated: bool) -> FloatArray:
        """Thresholds (C,) for calibrated, or calibrated and gated, probabilities; NaN for none.

        Raises UserError that names the classes that have no map.
        """
        self._check_known(class_names)
        found = [self.classes[name] for name in class_names]
        return np.array([one.threshold_gated if gated else one.threshold for one in found])

    def _check_known(self, class_names: Sequence[str]) -> None:
        missing = [name for name in class_names if name not in self.classes]
        if missing:
            raise UserError(
                f"the calibration has nothing for {len(missing):,} of the {len(class_names):,} "
                f"classes ({some(missing)}); it is for {some(list(self.classes), 12)}"
            )


def write_calibration(path: Path, calibration: Calibration, made_from: Mapping[str, Any]) -> None:
    """Write `calibration.json` to `path`, whole or not at all.

    `made_from` says where it comes from, as JSON can hold it. Raises UserError where the folder
    cannot be written to.
    """
    classes = {
        name: {
            "method": one.method,
            **one.parameters,
            "threshold": None if math.isnan(one.threshold) else one.threshold,
            "threshold_gated": None if math.isnan(one.threshold_gated) else one.threshold_gated,
        }
        for name, one in calibration.classes.items()
    }
    content = {
        "classes": classes,
        "normal_class": calibration.normal_class,
        "normal_alpha": calibration.normal_alpha,
        "made_from": dict(made_from),
    }
    write_document(path, "calibration", content)


def read_calibration(path: Path) -> Calibration:
    """Read a `calibration.json`.

    Raises UserError where it is not whole or holds what no fit gives: numbers that are not finite,
    a map that falls, probabilities outside [0, 1].
    """
    document: _Document = convert(path, "it", read_document(path, "calibration"), _Document)
    for name in document.classes:
        check_name(path, name)
    classes = {name: _read_class(path, name, entry) for name, entry in document.classes.items()}
    normal, alpha = document.normal_class, document.normal_alpha
    if normal is not None and normal not in classes:
        refuse(path, '"normal_class" is none of its classes')
    if normal is None and alpha > 0:
        refuse(path, f'"normal_alpha" is {alpha:g}, without a normal class')
    return Calibration(classes, normal, alpha)


def _read_class(path: Path, name: str, entry: Any) -> ClassCalibration:
    what = f"the class {quoted(name)}"
    found = msgspec.structs.asdict(convert(path, what, entry, _Map))
    if "knots" in found:
        steps = np.diff(found["knots"]), np.diff(found["values"])
        if len(steps[0]) != len(steps[1]) or (steps[0] <= 0).any() or (steps[1] < 0).any():
            refuse(path, f"{what} has knots that do not rise, or values that fall or do not fit")
    thresholds = [found.pop(key) for key in ("threshold", "threshold_gated")]
    cuts = [math.nan if one is None else one for one in thresholds]
    return ClassCalibration(entry["method"], found, *cuts)
