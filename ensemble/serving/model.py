"""Models of the page: probabilities, notes and heat maps of an uploaded file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from core.data.images.decode import decode_image, shrink_to
from core.data.images.dicom.limits import bounded, is_dicom_data
from core.errors import escape_control
from core.metrics import group_of
from ensemble.heatmaps.maps import LONGEST_SHOWN, ensemble_maps
from ensemble.predict.calibration import make_postprocess, read_calibration
from ensemble.predict.config import PostprocessConfig
from ensemble.predict.ensemble import Ensemble, Member
from ensemble.predict.predictor import Predictor
from ensemble.predict.tta import TTA
from ensemble.serving.config import Config

NOTICE = "Research use only. Not a medical device."


@dataclass(frozen=True, eq=False)
class ServedModels:
    """Ensemble of the page with its classes and notes; for one thread at a time."""

    predictor: Predictor
    calibrated: bool
    classes: list[dict[str, Any]]
    notes: list[str]

    @classmethod
    def load(cls, config: Config, fabric: Fabric) -> ServedModels:
        """Load the models and predict once. Raises UserError for an invalid file or output."""
        ensemble = Ensemble.load(config.models, config.merge.classes)
        names = ensemble.class_names
        postprocess = make_postprocess(config.postprocessing, names)
        predictor = Predictor(fabric, ensemble, config.merge, postprocess)
        predictor.predict_image(np.full((64, 64), 128, np.uint8))
        thresholds, notes = _thresholds(config.postprocessing, names)
        classes = [
            {"name": name, "threshold": threshold, **_training(ensemble.members, name)}
            for name, threshold in zip(names, thresholds, strict=True)
        ]
        if (number := len(TTA[config.merge.tta])) > 1:
            notes.append(
                f"Merged from {number} augmented copies of the image (--tta_config "
                f"{config.merge.tta}, {config.merge.tta_merge_mode}), some of them mirrored, which "
                "swaps left and right."
            )
        return cls(predictor, config.postprocessing.calibration is not None, classes, notes)

    def about(self) -> dict[str, Any]:
        """Models and classes, as JSON."""
        ensemble = self.predictor.ensemble
        models = [
            {"file": escape_control(member.path.name), **member.summary(), "share": float(share)}
            for member, share in zip(ensemble.members, ensemble.shares, strict=True)
        ]
        about = {"notice": NOTICE, "models": models, "calibrated": self.calibrated}
        return about | {"classes": self.classes, "notes": self.notes}

    def predict(self, data: bytes, *, preview: bool) -> dict[str, Any]:
        """Probabilities and notes of an uploaded file, as JSON; `preview` adds its pixels."""
        pixels = decode_image(data, "upload")
        probabilities = self.predictor.predict_image(pixels).tolist()
        classes = []
        for known, probability in zip(self.classes, probabilities, strict=True):
            threshold = known["threshold"]
            positive = None if threshold is None else probability >= threshold
            found = {"probability": probability, "positive": positive}
            classes.append({key: known[key] for key in ("name", "threshold", "group")} | found)
        height, width = pixels.shape
        answer: dict[str, Any] = {
            "notice": NOTICE,
            "calibrated": self.calibrated,
            "image": {"width": width, "height": height},
            "notes": [*_notes_of(data, pixels, self.predictor.ensemble.sizes), *self.notes],
            "classes": classes,
        }
        if preview:
            answer["preview"] = _png(shrink_to(pixels, LONGEST_SHOWN))
        return answer

    def heat_map(self, data: bytes, name: str) -> dict[str, Any]:
        """Heat map of a class as a grey PNG, 255 for the strongest evidence."""
        pixels = decode_image(data, "upload")
        height, width = shrink_to(pixels, LONGEST_SHOWN).shape
        _, mean = ensemble_maps(self.predictor.ensemble, pixels, [name], (height, width))
        return {"class": name, "map": _png((mean[0] * 255).round().astype(np.uint8))}


def _png(pixels: NDArray[Any]) -> str:
    coded = cv2.imencode(".png", pixels)[1].tobytes()
    return f"data:image/png;base64,{base64.b64encode(coded).decode()}"


def _thresholds(
    config: PostprocessConfig, names: Sequence[str]
) -> tuple[list[float | None], list[str]]:
    """Threshold of each class or None, and notes on them."""
    none: list[float | None] = [None] * len(names)
    if config.calibration is None:
        return none, [
            "Not calibrated and without thresholds: the numbers rank images, but are not "
            "frequencies; make a --calibration by python -m ensemble.calibrate."
        ]
    calibration = read_calibration(config.calibration)
    other_alpha = config.normal_alpha not in (None, calibration.normal_alpha)
    other_class = config.normal_class not in ("", calibration.normal_class)
    if config.gated and (other_alpha or other_class):
        return none, ["No thresholds: those of the calibration are for another normal gating."]
    found = calibration.thresholds(names, gated=config.gated)
    return [None if np.isnan(one) else float(one) for one in found], []


def _training(members: Sequence[Member], name: str) -> dict[str, Any]:
    """Group of a class and its counts in the training images of all models with known counts."""
    positives = known = 0
    for member in members:
        first = member.facts("training_positives").get(name)
        second = member.facts("training_known").get(name)
        # unchecked facts of a file
        if type(first) is int and type(second) is int and 0 <= first <= second < 2**53:
            positives, known = positives + first, known + second
    if not known:
        return {"group": "unknown", "training_positives": None, "training_known": None}
    group = group_of(positives / known)
    return {"group": group, "training_positives": positives, "training_known": known}


def _notes_of(data: bytes, pixels: NDArray[np.uint8], sizes: Sequence[int]) -> list[str]:
    notes = []
    if is_dicom_data(data):
        # optional package, installed if the pixels could be read
        from pydicom import dcmread

        tags = ["PhotometricInterpretation", "ViewPosition"]
        header = dcmread(bounded(data), stop_before_pixels=True, specific_tags=tags)
        if header.get("PhotometricInterpretation") == "MONOCHROME1":
            notes.append("Inverted: the DICOM file has white as its lowest value (MONOCHROME1).")
        if view := str(header.get("ViewPosition") or ""):
            notes.append(f"View in the DICOM header: {escape_control(view)[:20]}.")
    if pixels.min() == pixels.max():
        notes.append("All pixels are equal: this is not a radiograph.")
    height, width = pixels.shape
    if height != width:
        squares = ", ".join(map(str, sizes))
        notes.append(f"Resized to a square for the models (of {squares} pixels).")
    return notes
