"""Models that predict together, their classes matched by name."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from core.errors import UserError, some
from core.models.load import ModelInfo, load_model
from ensemble.predict.config import ModelsConfig
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

    @classmethod
    def load(cls, path: Path) -> "Member":
        """Raises UserError where the checkpoint cannot be used."""
        model, info = load_model(path)
        with path.open("rb") as file:
            return cls(path, model, info, hashlib.file_digest(file, "sha256").hexdigest())

    def summary(self) -> dict[str, Any]:
        """Method, model, pixels, fold and number of classes; None for what is unknown."""
        settings, fold = self.info.facts.get("model"), self.info.facts.get("fold")
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


@dataclass(frozen=True, eq=False)
class Ensemble:
    """M models, their shares, and the classes that they predict together."""

    members: Sequence[Member]
    shares: NDArray[np.float64]
    """(M,) parts of 1"""
    class_names: Sequence[str]

    @classmethod
    def load(cls, config: ModelsConfig, classes: str = "same") -> "Ensemble":
        """Read all checkpoints that `config` names, whole.

        The classes are those of an ensemble.json, else in the order of the first model that has
        them: "union" takes those that any has, "intersection" those that all have, "same" refuses
        models that differ. Raises UserError where a file, the weights or the classes cannot be
        used.
        """
        if config.ensemble is not None:
            checkpoints, weights, names = read_recipe(config.ensemble)
        else:
            checkpoints, weights, names = [*config.checkpoints], [*config.weights], []
        shares = model_shares(weights, len(checkpoints))
        # a model without a share would cost its passes, and alone know a class
        pairs = zip(checkpoints, shares, strict=True)
        members = [Member.load(path) for path, share in pairs if share]
        names = _known(members, names) if names else _merged_classes(members, classes)
        return cls(members, shares[shares > 0], names)

    @property
    def paths(self) -> list[Path]:
        """The checkpoints."""
        return [member.path for member in self.members]

    @property
    def sizes(self) -> list[int]:
        """The image sizes of the models, in rising order."""
        return sorted({member.info.image_size for member in self.members})

    def labels(self) -> list[str]:
        """A short name for each model: its method and fold, numbered where that is not unique."""
        short = []
        for member in self.members:
            fold = member.summary()["fold"]
            short.append(member.info.method + ("" if fold is None else f" fold {fold}"))
        return [
            f"{name} ({short[: place + 1].count(name)})" if short.count(name) > 1 else name
            for place, name in enumerate(short)
        ]

    def __str__(self) -> str:
        """A line for each model with its share, then what they differ in."""
        rows = [member.summary() for member in self.members]
        lines = []
        for member, row, share in zip(self.members, rows, self.shares, strict=True):
            cells = ", ".join(f"{name} {value}" for name, value in row.items() if value is not None)
            lines.append(f"{share:6.1%}  {member.path} ({cells})")
        without = [
            f"{name} by {count} of {len(rows)}"
            for name in self.class_names
            if (count := sum(name in one.info.class_names for one in self.members)) < len(rows)
        ]
        if without:
            lines.append(f"Not every model has each class: {some(without, 12)}.")
        if differing := [name for name in rows[0] if len({str(row[name]) for row in rows}) > 1]:
            lines.append(f"The models differ in {', '.join(differing)}.")
        return "\n".join(lines)


def _merged_classes(members: Sequence[Member], classes: str) -> list[str]:
    sets = [set(member.info.class_names) for member in members]
    everyone = list(dict.fromkeys(name for one in members for name in one.info.class_names))
    shared = [name for name in everyone if all(name in names for names in sets)]
    if classes == "union":
        return everyone
    if len(shared) < len(everyone) and classes == "same":
        odd = next(one for one in members if set(one.info.class_names) != sets[0])
        raise UserError(
            f"{odd.path} and {members[0].path} do not have the same classes: "
            f"{some(sorted(set(odd.info.class_names) ^ sets[0]), 12)} in one of them only; take "
            "--classes union or --classes intersection"
        )
    if not shared:
        raise UserError("the checkpoints have no class in common: take --classes union")
    return shared


def _known(members: Sequence[Member], class_names: list[str]) -> list[str]:
    known = {name for member in members for name in member.info.class_names}
    if missing := [name for name in class_names if name not in known]:
        raise UserError(
            f"{len(missing):,} of the ensemble's {len(class_names):,} classes are in none of its "
            f"checkpoints: {some(missing, 12)}; choose anew by `python -m ensemble.choose`"
        )
    return class_names
