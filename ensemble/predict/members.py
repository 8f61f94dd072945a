"""The models of an ensemble: several checkpoints, their classes matched by name."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from core.errors import UserError, some
from core.models.load import ModelInfo, load_model
from ensemble.predict.ensemble_json import read_recipe
from ensemble.predict.merge import model_shares


@dataclass(frozen=True, eq=False)
class Member:
    """One checkpoint, read whole."""

    path: Path
    model: nn.Module
    info: ModelInfo
    digest: str
    """SHA-256 of the file."""

    def told(self) -> dict[str, object]:
        """What tells it from others, for the user."""
        facts = self.info.facts
        settings, fold = facts.get("model"), facts.get("fold")
        return {
            "method": self.info.method,
            "model": settings.get("model") if isinstance(settings, dict) else None,
            "pixels": self.info.image_size,
            # the one that nothing has checked yet
            "fold": fold if type(fold) is int else None,
            "classes": len(self.info.class_names),
        }

    def places(self, class_names: Sequence[str]) -> tuple[list[int], list[int]]:
        """(places among `class_names`, places in the model's own order) of what both have."""
        own = {name: place for place, name in enumerate(self.info.class_names)}
        both = [place for place, name in enumerate(class_names) if name in own]
        return both, [own[class_names[place]] for place in both]


def named_checkpoints(
    checkpoints: Sequence[Path], weights: Sequence[float], ensemble: Path | None
) -> tuple[list[Path], np.ndarray, list[str]]:
    """What --checkpoints and --weights, or an ensemble.json in their place, name.

    The checkpoints, their shares (M,) as parts of 1, and the ensemble's classes ([] without one).
    Raises UserError where the weights or the file cannot be used.
    """
    names: list[str] = []
    if ensemble is not None:
        checkpoints, weights, names = read_recipe(ensemble)
    shares = model_shares(weights, len(checkpoints))
    # a model without a share would cost its passes, and alone know a class
    taken = [path for path, share in zip(checkpoints, shares, strict=True) if share]
    return taken, shares[shares > 0], names


def load_members(checkpoints: Sequence[Path]) -> list[Member]:
    """Read each checkpoint whole. Raises UserError where one cannot be used."""
    members = []
    for path in checkpoints:
        model, info = load_model(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        members.append(Member(path, model, info, digest))
    return members


def merged_classes(members: Sequence[Member], classes: str = "same") -> list[str]:
    """The classes of all members, in the order of the first that has them.

    `classes`: "union" takes those that any has, "intersection" those that all have, "same" refuses
    members that differ. Raises UserError that names the differing classes, and where
    the intersection is empty.
    """
    sets = [set(member.info.class_names) for member in members]
    everyone = list(dict.fromkeys(name for one in members for name in one.info.class_names))
    shared = [name for name in everyone if all(name in names for names in sets)]
    differing = [name for name in everyone if name not in shared]
    if classes == "union":
        return everyone
    if differing and classes == "same":
        odd = next(one for one in members if set(one.info.class_names) != sets[0])
        raise UserError(
            f"{odd.path} and {members[0].path} do not have the same classes: "
            f"{some(sorted(set(odd.info.class_names) ^ sets[0]), 12)} in one of them only; take "
            "--classes union or --classes intersection"
        )
    if not shared:
        raise UserError("the checkpoints have no class in common: take --classes union")
    return shared


def known_classes(members: Sequence[Member], class_names: list[str]) -> list[str]:
    """`class_names`, if each is known to a member. Raises UserError that names the others."""
    known = {name for member in members for name in member.info.class_names}
    if missing := [name for name in class_names if name not in known]:
        raise UserError(
            f"{len(missing):,} of the ensemble's {len(class_names):,} classes are in none of its "
            f"checkpoints: {some(missing, 12)}; choose anew by `python -m ensemble.choose`"
        )
    return class_names


def describe(members: Sequence[Member], shares: np.ndarray, class_names: Sequence[str]) -> str:
    """A line for each member with its share, then what they differ in."""
    rows = [member.told() for member in members]
    lines = []
    for member, row, share in zip(members, rows, shares, strict=True):
        cells = ", ".join(f"{name} {value}" for name, value in row.items() if value is not None)
        lines.append(f"{share:6.1%}  {member.path} ({cells})")
    differing = [name for name in rows[0] if len({str(row[name]) for row in rows}) > 1]
    without = [
        f"{name} by {count} of {len(members)}"
        for name in class_names
        if (count := sum(name in one.info.class_names for one in members)) < len(members)
    ]
    if without:
        lines.append(f"Not every model has each class: {some(without, 12)}.")
    if differing:
        lines.append(f"The models differ in {', '.join(differing)}.")
    return "\n".join(lines)
