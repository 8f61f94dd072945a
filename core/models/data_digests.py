"""Digests of the images and patients that a checkpoint was trained and validated on.

A checkpoint stores them in one tensor of bytes, and its facts describe the sets: 8 bytes an image
(63 bits), 4 a patient (32 bits, keyed by the data of the run). An image matches one of 377,110
others by chance with probability 4e-14, a patient one of 65,000 others with 1.5e-5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np

from core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# name of the tensor, and of the fact that describes it
NAME = "data_digests"
# checkpoints with digests: older versions ask for an update
FORMAT_WITH_DIGESTS = 3
Role = Literal["training", "validation"]
_TYPES: dict[str, np.dtype[Any]] = {"images": np.dtype("<i8"), "patients": np.dtype("<u4")}


class _Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Description of a digest set in the facts."""

    role: Role
    of: Literal["images", "patients"]
    count: Annotated[int, msgspec.Meta(ge=0, le=2**32)]
    size: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    key: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{0,128}\Z")] = ""


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    complete: bool
    parts: list[_Description]


@dataclass(frozen=True, eq=False)
class DigestSet:
    """Sorted digests of images resized to `size` pixels, or of patients, keyed by `key`."""

    role: Role
    digests: np.ndarray
    """int64 (N,) of images, uint32 (N,) of patients"""
    size: int = 0
    """0 for patients"""
    key: bytes = b""

    @property
    def of(self) -> Literal["images", "patients"]:
        """Kind of the digests."""
        return "images" if self.size else "patients"

    def has(self, digests: np.ndarray) -> np.ndarray:
        """Whether each of `digests` (M,) is in this set, bool (M,); never for 0 (unread)."""
        return np.isin(digests, self.digests) & (digests != 0)


@dataclass(frozen=True, eq=False)
class DataDigests:
    """Digest sets of a checkpoint; not `complete` if its initial checkpoint has none."""

    parts: tuple[DigestSet, ...]
    complete: bool = True

    @classmethod
    def read(
        cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], path: Path
    ) -> DataDigests | None:
        """Read the digests from the tensors and facts of `path`; None if there are none.

        Raises UserError if the facts do not match the tensor.
        """
        if NAME not in tensors:
            return None
        try:
            data = tensors[NAME].numpy().astype(np.uint8, casting="no").tobytes()
            described = msgspec.convert(facts.get(NAME), _Facts)
            parts, start = [], 0
            for one in described.parts:
                if (one.of == "images") != (one.size > 0):
                    raise ValueError("images need a size in pixels, patients have none")
                found = np.frombuffer(data, _TYPES[one.of], one.count, start)
                parts.append(DigestSet(one.role, found, one.size, bytes.fromhex(one.key)))
                start += found.nbytes
            if start != len(data):
                raise ValueError(f"it has {len(data):,} bytes and {start:,} are described")
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{path} does not describe its {NAME} ({error}): copy it again, or train it again"
            ) from error
        return cls(tuple(parts), described.complete)

    @classmethod
    def union(cls, several: Sequence[DataDigests | None]) -> DataDigests | None:
        """Digests of a model made from several: trained on what any was trained on, validated on
        what any was validated on and none was trained on.

        Incomplete if one is, or is None; None if all are.
        """
        known = [one for one in several if one is not None]
        if not known:
            return None
        groups: dict[tuple[Role, int, bytes], list[np.ndarray]] = {}
        for part in (part for one in known for part in one.parts):
            groups.setdefault((part.role, part.size, part.key), []).append(part.digests)
        merged = {group: np.unique(np.concatenate(found)) for group, found in groups.items()}
        for (role, size, key), digests in merged.items():
            trained = merged.get(("training", size, key))
            if role == "validation" and trained is not None:
                merged[role, size, key] = digests[~np.isin(digests, trained)]
        parts = (DigestSet(role, found, size, key) for (role, size, key), found in merged.items())
        complete = len(known) == len(several) and all(one.complete for one in known)
        return cls(tuple(parts), complete)

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensor, uint8 (bytes,), and facts to add to a checkpoint."""
        import torch

        arrays = [part.digests.astype(_TYPES[part.of]) for part in self.parts]
        data = bytearray(b"".join(array.tobytes() for array in arrays))
        described = [
            _Description(
                role=part.role,
                of=part.of,
                count=len(part.digests),
                size=part.size,
                key=part.key.hex(),
            )
            for part in self.parts
        ]
        tensor = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0).byte()
        facts = msgspec.to_builtins(_Facts(self.complete, described))
        return {NAME: tensor}, {NAME: facts, "format_version": FORMAT_WITH_DIGESTS}

    @property
    def of_patients(self) -> bool:
        """Whether there are digests of patients."""
        return any(not part.size for part in self.parts)

    def sizes(self) -> set[int]:
        """The sizes at which images are compared, in pixels a side."""
        return {part.size for part in self.parts if part.size}

    def with_initial(self, initial: DataDigests | None, *, patients: bool) -> DataDigests:
        """Add the digests of the initial checkpoint, those of patients only if `patients`.

        The result is incomplete if `initial` is None.
        """
        if initial is None:
            return DataDigests(self.parts, complete=False)
        more = [part for part in initial.parts if patients or part.size]
        return DataDigests((*self.parts, *more), self.complete and initial.complete)


def patient_digests(patients: Iterable[str], key: bytes) -> np.ndarray:
    """Keyed 32-bit digests of patients, uint32 (N,); the `key` has at most 64 bytes."""
    texts = (patient.encode(errors="surrogateescape") for patient in patients)
    data = b"".join(hashlib.blake2b(text, digest_size=4, key=key).digest() for text in texts)
    return np.frombuffer(data, dtype="<u4")
