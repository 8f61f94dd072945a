"""The models behind the page: a file's bytes → probabilities, notes and heat maps."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from lightning_fabric import Fabric
from numpy.typing import NDArray

from core.data.images.decode import decode_image, within
from core.data.images.dicom.header import is_dicom_data
from core.data.images.dicom.limits import bounded
from core.errors import UserError, in_plain_sight, nearest
from core.metrics import group_of
from ensemble.heatmaps.maps import LONGEST_SHOWN, ensemble_maps
from ensemble.predict.config import Config
from ensemble.predict.members import (
    Member,
    known_classes,
    load_members,
    merged_classes,
    named_checkpoints,
)
from ensemble.predict.postprocess import postprocess_of, read_calibration
from ensemble.predict.predictor import Predictor, Views
from ensemble.predict.single_image import probabilities_of
from ensemble.predict.tta import VIEWS
from ensemble.predict.write_csv import Finish

NOTICE = "Research use only. Not a medical device."


@dataclass(frozen=True, eq=False)
class Served:
    """An ensemble, and what is known of its classes. Its methods are for one thread at a time."""

    predictor: Predictor
    finish: Finish
    calibrated: bool
    classes: list[dict[str, Any]]
    """Of each class its name, threshold (or None), group and training counts (or None)."""
    notes: list[str]
    """What is true of every prediction."""

    @classmethod
    def of(cls, config: Config, fabric: Fabric) -> Served:
        """Load what the settings name, and predict once.

        Raises UserError where a file cannot be used, or a model gives what is not finite.
        """
        paths, shares, names = named_checkpoints(
            config.checkpoints, config.weights, config.ensemble
        )
        members = load_members(paths)
        names = known_classes(members, names) if names else merged_classes(members, config.classes)
        finish = Finish(
            shares=shares, mode=config.ensemble_mode, postprocess=postprocess_of(config, names)
        )
        views = Views(
            names=config.tta_config if config.use_tta else "none", merge=config.tta_merge_mode
        )
        predictor = Predictor(fabric, members, names, views)
        probabilities_of(predictor, finish, np.full((64, 64), 128, np.uint8))
        thresholds, notes = _thresholds(config, names)
        classes = [
            {"name": name, "threshold": threshold, **_training(members, name)}
            for name, threshold in zip(names, thresholds, strict=True)
        ]
        notes += _notes_of_views(views)
        return cls(predictor, finish, config.calibration is not None, classes, notes)

    @property
    def names(self) -> list[str]:
        """The classes, in the order of the answers."""
        return self.predictor.class_names

    def about(self) -> dict[str, Any]:
        """What is served, as JSON can hold it."""
        models = [
            {"file": in_plain_sight(member.path.name), **member.told(), "share": float(share)}
            for member, share in zip(self.predictor.members, self.finish.shares, strict=True)
        ]
        return {
            "notice": NOTICE,
            "models": models,
            "calibrated": self.calibrated,
            "classes": self.classes,
            "notes": self.notes,
        }

    def predict(self, data: bytes, *, preview: bool) -> dict[str, Any]:
        """What the models say of an image, as JSON can hold it; with a `preview` its pixels too.

        Raises UserError where it cannot be read.
        """
        pixels = decode_image(data, "upload")
        probabilities = probabilities_of(self.predictor, self.finish, pixels).tolist()
        classes = [
            {
                "name": known["name"],
                "probability": probability,
                "threshold": (threshold := known["threshold"]),
                "positive": None if threshold is None else probability >= threshold,
                "group": known["group"],
            }
            for known, probability in zip(self.classes, probabilities, strict=True)
        ]
        height, width = pixels.shape
        told: dict[str, Any] = {
            "notice": NOTICE,
            "calibrated": self.calibrated,
            "image": {"width": width, "height": height},
            "notes": [*_notes_of(data, pixels, self.predictor.sizes), *self.notes],
            "classes": classes,
        }
        return told | {"preview": _png(within(pixels, LONGEST_SHOWN))} if preview else told

    def heat_map(self, data: bytes, name: str) -> dict[str, Any]:
        """Where the models see what speaks for a class: a grey PNG, 255 for the most.

        Raises UserError where the image cannot be read, or a model can give no map.
        """
        pixels = decode_image(data, "upload")
        members, shares = self.predictor.members, self.finish.shares
        height, width = within(pixels, LONGEST_SHOWN).shape
        _, mean = ensemble_maps(members, shares, pixels, [name], (height, width))
        return {"class": name, "map": _png((mean[0] * 255).round().astype(np.uint8))}

    def check_class(self, name: str) -> None:
        """Raise UserError, with the nearest one, where there is no such class."""
        if name not in self.names:
            raise UserError(f"there is no class '{name[:200]}'{nearest(name, self.names)}")


def _png(pixels: NDArray[Any]) -> str:
    """Grey pixels (H, W) as a data URL."""
    coded = cv2.imencode(".png", pixels)[1].tobytes()
    return f"data:image/png;base64,{base64.b64encode(coded).decode()}"


def _thresholds(config: Config, names: Sequence[str]) -> tuple[list[float | None], list[str]]:
    """Of each class the threshold for what is given out, or None; and what to say of them."""
    if config.calibration is None:
        why = (
            "Not calibrated, and so without thresholds: the numbers put images in an order and are "
            "no frequencies; python -m ensemble.calibrate makes what --calibration takes."
        )
        return [None] * len(names), [why]
    calibration = read_calibration(config.calibration)
    gated = config.postprocess == "normal_gating"
    other_alpha = config.normal_alpha not in (None, calibration.normal_alpha)
    other_class = config.normal_class not in ("", calibration.normal_class)
    if gated and (other_alpha or other_class):
        why = "No thresholds: those of the calibration are for a gating of its own."
        return [None] * len(names), [why]
    found = calibration.thresholds(names, gated=gated)
    return [None if np.isnan(one) else float(one) for one in found], []


def _training(members: Sequence[Member], name: str) -> dict[str, Any]:
    """How often a class was in the training images of all models that say so, and its group."""
    positives = known = 0
    for member in members:
        both = (member.info.facts.get(f"training_{what}") for what in ("positives", "known"))
        first, second = (one.get(name) if isinstance(one, dict) else None for one in both)
        # what nothing has checked yet
        if type(first) is int and type(second) is int and 0 <= first <= second < 2**53:
            positives, known = positives + first, known + second
    if not known:
        return {"group": "unknown", "training_positives": None, "training_known": None}
    group = group_of(positives / known)
    return {"group": group, "training_positives": positives, "training_known": known}


def _notes_of_views(views: Views) -> list[str]:
    number = len(VIEWS[views.names])
    if number == 1:
        return []
    return [
        f"Merged from {number} views of the image (--tta_config {views.names}, {views.merge}), "
        "some of them mirrored, which swaps left and right."
    ]


def _notes_of(data: bytes, pixels: NDArray[np.uint8], sizes: Sequence[int]) -> list[str]:
    """What to know of this image."""
    notes = []
    if is_dicom_data(data):
        # late: an extra, that is there where the pixels could be read
        from pydicom import dcmread

        tags = ["PhotometricInterpretation", "ViewPosition"]
        header = dcmread(bounded(data), stop_before_pixels=True, specific_tags=tags)
        if header.get("PhotometricInterpretation") == "MONOCHROME1":
            notes.append("Inverted: the DICOM file has white as its lowest value (MONOCHROME1).")
        if view := str(header.get("ViewPosition") or ""):
            notes.append(f"The DICOM header says: view {in_plain_sight(view)[:20]}.")
    if pixels.min() == pixels.max():
        notes.append("All of the image is one grey: it is hardly a radiograph.")
    height, width = pixels.shape
    if height != width:
        squares = ", ".join(map(str, sizes))
        notes.append(f"The models see it as a square (of {squares} pixels), its sides not kept.")
    return notes
