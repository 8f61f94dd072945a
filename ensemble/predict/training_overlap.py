"""Overlap of predicted rows with the checkpoints' training data: counts, warnings and JSON.

{"kind": "training_overlap", "format_version": 1, "rows": ..., "rows_sha256": ...,
 "checkpoints": [{"checkpoint": ..., "known": ..., "image_in_training": ..., ...}],
 "row_numbers": {"image_in_training": ["3", "5-8", ...], ...}}

Row numbers count the rows of the CSV from 1; a row is listed if any checkpoint has it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pandas as pd

from core.data.images.collection import Images
from core.data.images.dicom.header import from_headers
from core.data.tables.label_table import LabelTable
from core.errors import UserError, list_first, pluralize
from core.models.data_digests import patient_digests
from core.runs.pseudo_labels import KIND, overlap_path
from ensemble.predict.ensemble import Member
from ensemble.predict.ensemble_json import convert, read_document

IMAGES = ("image_in_training", "image_in_validation")
PATIENTS = ("patient_in_training", "patient_in_validation")
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class Checkpoint(msgspec.Struct, kw_only=True):
    """Number of rows with an image or patient of one checkpoint's training and validation."""

    checkpoint: str
    known: bool
    """True if the checkpoint has digests of its training images."""
    not_compared: _Count = 0
    """Rows of a pack of another size than the training's images."""
    image_in_training: _Count = 0
    image_in_validation: _Count = 0
    patient_in_training: _Count | None = None
    patient_in_validation: _Count | None = None
    """None if the checkpoint or the rows lack patients."""


class _Document(msgspec.Struct):
    rows: _Count
    rows_sha256: str
    checkpoints: list[Checkpoint]
    row_numbers: dict[str, list[Annotated[str, msgspec.Meta(pattern=r"^\d{1,12}(-\d{1,12})?\Z")]]]


@dataclass(frozen=True, eq=False)
class Overlap:
    """Overlap of R predicted rows with the training data of the checkpoints."""

    checkpoints: list[Checkpoint]
    rows: dict[str, np.ndarray]
    """Bool (R,) by the names in IMAGES and PATIENTS; True if any checkpoint has the row."""

    def take(self, rows: np.ndarray) -> "Overlap":
        """Subset of the rows, (K,) int indices; the counts of each checkpoint are unchanged."""
        return replace(self, rows={name: found[rows] for name, found in self.rows.items()})

    def counts(self) -> dict[str, int | None]:
        """Number of rows by the names in IMAGES and PATIENTS; None for unknown patients."""
        counts: dict[str, int | None] = {name: int(one.sum()) for name, one in self.rows.items()}
        if all(one.patient_in_training is None for one in self.checkpoints):
            counts |= dict.fromkeys(PATIENTS)
        return counts

    def sentences(self, one: str, several: str) -> list[str]:
        """Warnings for the user; `one` and `several` are the words for a row and for rows."""
        lines = []
        if names := [Path(c.checkpoint).name for c in self.checkpoints if not c.known]:
            lines.append(f"Unknown training images: {list_first(names)}.")
        if most := max((c.not_compared for c in self.checkpoints), default=0):
            lines.append(
                f"Unknown for {pluralize(most, one, several)}: a pack of another size than that of "
                "the training cannot be compared; give the folder of the images."
            )
        trained, validated = (self.rows[name] for name in IMAGES)
        related = self.rows[PATIENTS[0]] | self.rows[PATIENTS[1]]
        validated, related = validated & ~trained, related & ~trained & ~validated
        found = {
            "trained on by at least one checkpoint": trained,
            "validated on": validated,
            "of a patient of its training or validation": related,
        }
        if shown := [f"{rows.sum():,} {what}" for what, rows in found.items() if rows.any()]:
            lines.append(
                f"Warning: of {pluralize(len(trained), one, several)}, {', '.join(shown)}: scores "
                "on these are too good."
            )
        if any(c.known for c in self.checkpoints) and self.counts()[PATIENTS[0]] is None:
            lines.append(
                "Patients are not compared, as the checkpoints or the images do not name them. "
                "Other images of training patients may be among these."
            )
        return lines


def find_overlap(
    members: Sequence[Member],
    sizes: Sequence[int],
    digests: np.ndarray,
    row_of: np.ndarray,
    images: LabelTable | None = None,
    *,
    anonymous: bool = False,
) -> Overlap:
    """Find rows with an image or patient that `members` were trained or validated on.

    digests: int64 (N, S) of N images at each of `sizes`, 0 for none; row_of: int (N,), the row
    (from 0) of each image; images: the table of the images, for their patients.
    """
    count = int(row_of.max()) + 1
    patients = None
    if any(m.info.data_digests and m.info.data_digests.of_patients for m in members):
        patients = None if images is None else _patients(images)
    people = None if patients is None else pd.factorize(patients.astype(str))
    every = {name: np.zeros(count, dtype=bool) for name in (*IMAGES, *PATIENTS)}
    checkpoints = []

    def rows(of_images: np.ndarray) -> np.ndarray:
        """Rows, bool (R,), of images, bool (N,)."""
        return np.bincount(row_of[of_images], minlength=count) > 0

    for member in members:
        name = member.path.name if anonymous else str(member.path)
        known = member.info.data_digests
        if known is None:
            checkpoints.append(Checkpoint(checkpoint=name, known=False))
            continue
        found: dict[str, Any] = {}
        for part in known.parts:
            if part.size:
                matches = part.has(digests[:, sizes.index(part.size)])
            elif people is None:
                continue
            else:
                matches = part.has(_digests_of(people, part.key))
            flag = f"{'image' if part.size else 'patient'}_in_{part.role}"
            found[flag] = found.get(flag, False) | rows(matches)
        trained, related = (found.get(names[0], np.zeros(1)) for names in (IMAGES, PATIENTS))
        if trained.any() and not related.any():
            # the patient of an image of the training is one of it, unless named otherwise here
            found = {flag: one for flag, one in found.items() if flag in IMAGES}
        for flag, one in found.items():
            every[flag] |= one
        compared = np.ones(len(row_of), dtype=bool)
        if images is not None:
            compared = can_be_compared(images.images, known.sizes())
        checkpoints.append(
            Checkpoint(
                checkpoint=name,
                known=known.complete,
                not_compared=int(rows(~compared).sum()),
                **{flag: int(one.sum()) for flag, one in found.items()},
            )
        )
    return Overlap(checkpoints, every)


def can_be_compared(images: Images, sizes: Iterable[int]) -> np.ndarray:
    """Bool (N,): True for an image file, or an image of a pack with one of `sizes`."""
    has = [pack.plan.size in sizes for pack in images.packs]
    return np.array([*has, True], dtype=bool)[images.pack]


def _patients(images: LabelTable) -> np.ndarray | None:
    """Patient of each image, (N,) str, "" for unknown; None if all are."""
    if images.patients is not None or images.images.packs:
        return images.patients
    try:
        return from_headers(images.paths).get("patient")
    except UserError:
        return None


def _digests_of(patients: tuple[np.ndarray, np.ndarray], key: bytes) -> np.ndarray:
    """Digests uint32 (N,) of patients, codes (N,) and names; 0 for an unknown patient."""
    codes, names = patients
    digests = patient_digests(names.tolist(), key).copy()
    digests[names == ""] = 0
    return digests[codes]


def is_overlap(path: Path) -> bool:
    """True if the file is a valid overlap JSON."""
    try:
        read_document(path, KIND)
    except UserError:
        return False
    return True


def as_document(overlap: Overlap, names: Sequence[str]) -> dict[str, Any]:
    """Content of the JSON, for rows with these `names` (R,)."""
    return {
        "rows": len(names),
        "rows_sha256": _digest(names),
        "checkpoints": msgspec.to_builtins(overlap.checkpoints),
        "row_numbers": {name: _ranges(rows) for name, rows in overlap.rows.items()},
    }


def read_overlap(predictions: Path, names: Sequence[str]) -> Overlap | None:
    """Read the JSON beside `predictions` with rows `names` (R,); None if there is none.

    Raises UserError if the JSON is invalid or of other rows.
    """
    path = overlap_path(predictions)
    if not path.is_file():
        return None
    document = convert(path, "it", read_document(path, KIND), _Document)
    if document.rows != len(names) or document.rows_sha256 != _digest(names):
        raise UserError(
            f"{path} has other rows than {predictions}: predict again, or delete it if you "
            "changed the rows"
        )
    rows = {name: np.zeros(len(names), dtype=bool) for name in (*IMAGES, *PATIENTS)}
    for name, found in rows.items():
        for text in document.row_numbers.get(name, []):
            first, _, last = text.partition("-")
            found[max(int(first) - 1, 0) : int(last or first)] = True
    return Overlap(document.checkpoints, rows)


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()


def _ranges(rows: np.ndarray) -> list[str]:
    """Ranges of True, counted from 1: "3", or "5-8" with the last one included."""
    steps = np.diff(np.concatenate([[False], rows, [False]]).astype(np.int8))
    first, behind = np.flatnonzero(steps == 1) + 1, np.flatnonzero(steps == -1)
    pairs = zip(first.tolist(), behind.tolist(), strict=True)
    return [f"{one}-{last}" if last > one else f"{one}" for one, last in pairs]
