"""Models that predict together, their classes matched by name."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from core.errors import UserError, list_first, suggest_name
from core.models.checkpoint import STATE_ENDING
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
    digest: str  # SHA-256 of the file

    @classmethod
    def load(cls, path: Path) -> "Member":
        """Raises UserError where the checkpoint cannot be used."""
        model, info = load_model(path)
        with path.open("rb") as file:
            return cls(path, model, info, hashlib.file_digest(file, "sha256").hexdigest())

    def facts(self, name: str) -> dict[str, Any]:
        """The checkpoint's facts of this name; empty where they are no JSON object."""
        found = self.info.facts.get(name)
        return found if isinstance(found, dict) else {}

    def summary(self) -> dict[str, Any]:
        """Method, model, pixels, fold and number of classes; None for unknown values."""
        fold = self.info.facts.get("fold")
        return {
            "method": self.info.method,
            "model": self.facts("model").get("model"),
            "pixels": self.info.image_size,
            "fold": fold if type(fold) is int else None,
            "classes": len(self.info.class_names),
        }

    def places(self, class_names: Sequence[str]) -> tuple[list[int], list[int]]:
        """(places among `class_names`, places in the model's own order) of shared classes."""
        own = {name: place for place, name in enumerate(self.info.class_names)}
        both = [place for place, name in enumerate(class_names) if name in own]
        return both, [own[class_names[place]] for place in both]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """M models, their shares, and the classes that they predict together."""

    members: Sequence[Member]
    shares: NDArray[np.float64]  # (M,) parts of 1
    class_names: Sequence[str]
    left_out: Sequence[Path] = ()
    """Resume states among the files that were named"""

    @classmethod
    def load(cls, config: ModelsConfig, classes: str = "same") -> "Ensemble":
        """Read all checkpoints of `config`, and the classes of its ensemble.json, if it has one.

        Else `classes` is "union", "intersection", or "same", which refuses models that differ.
        Resume states among the checkpoints, as `DIR/*.safetensors` names them, are left out.
        Raises UserError where a file, the weights or the classes cannot be used.
        """
        names: list[str] = []
        checkpoints, weights, states = _without_states(config.checkpoints, config.weights)
        if config.ensemble is not None:
            checkpoints, weights, names = read_recipe(config.ensemble)
        shares = model_shares(weights, len(checkpoints))
        # a model without a share would cost time, and could be the only one with a class
        pairs = zip(checkpoints, shares, strict=True)
        members = [Member.load(path) for path, share in pairs if share]
        class_names = _merge_classes(members, names, classes)
        return cls(members, shares[shares > 0], class_names, states)

    @property
    def paths(self) -> list[Path]:
        """The checkpoints."""
        return [member.path for member in self.members]

    @property
    def sizes(self) -> list[int]:
        """The image sizes of the models, in rising order."""
        return sorted({member.info.image_size for member in self.members})

    @property
    def digest_sizes(self) -> list[int]:
        """The sizes of the digests of images that the models were trained on, in rising order."""
        found = (one.info.data_digests for one in self.members)
        return sorted({size for digests in found if digests for size in digests.sizes()})

    def check_class(self, name: str) -> None:
        """Raise UserError, with the nearest one, where there is no such class."""
        if name not in self.class_names:
            raise UserError(
                f"there is no class '{name[:200]}'{suggest_name(name, self.class_names)}"
            )

    def labels(self) -> list[str]:
        """A short name for each model: its method and fold, numbered where that is not unique."""
        pairs = [(one.info.method, one.summary()["fold"]) for one in self.members]
        short = [method if fold is None else f"{method} fold {fold}" for method, fold in pairs]
        return [
            f"{name} ({short[: place + 1].count(name)})" if short.count(name) > 1 else name
            for place, name in enumerate(short)
        ]

    def __str__(self) -> str:
        """A line for each model with its weight, then the classes that not all have."""
        rows = [member.summary() for member in self.members]
        lines = []
        for member, row, share in zip(self.members, rows, self.shares, strict=True):
            cells = ", ".join(f"{name} {value}" for name, value in row.items() if value is not None)
            lines.append(f"weight {share:.2f}  {member.path} ({cells})")
        without = [
            f"{name} by {count} of {len(rows)}"
            for name in self.class_names
            if (count := sum(name in one.info.class_names for one in self.members)) < len(rows)
        ]
        if without:
            lines.append(f"Not every model has each class: {list_first(without, 12)}.")
        if self.left_out:
            lines.append(f"left out     {_describe_states(self.left_out)}")
        return "\n".join(lines)


def _without_states(
    paths: Sequence[Path], weights: Sequence[float]
) -> tuple[list[Path], list[float], list[Path]]:
    """The checkpoints among `paths`, their weights, and the resume states, known by their names.

    There is a weight for each path or for each checkpoint. Raises UserError where all are states.
    """
    is_model = [not path.name.endswith(STATE_ENDING) for path in paths]
    checkpoints = list(compress(paths, is_model))
    states = [path for path in paths if path not in checkpoints]
    if states and not checkpoints:
        raise UserError(f"{_describe_states(states)}; name the files without .state beside them")
    if len(weights) == len(paths):
        weights = list(compress(weights, is_model))
    return checkpoints, list(weights), states


def _describe_states(paths: Sequence[Path]) -> str:
    kind = "a resume state, no checkpoint" if len(paths) == 1 else "resume states, no checkpoints"
    return f"{list_first(list(map(str, paths)))}: {kind}"


def _merge_classes(members: Sequence[Member], names: list[str], classes: str) -> list[str]:
    """The classes `names` of an ensemble.json, or without them those of the models."""
    sets = [set(member.info.class_names) for member in members]
    union = list(dict.fromkeys(name for one in members for name in one.info.class_names))
    shared = [name for name in union if all(name in one for one in sets)]
    if missing := [name for name in names if name not in union]:
        raise UserError(
            f"{len(missing):,} of the ensemble's {len(names):,} classes are in none of its "
            f"checkpoints: {list_first(missing, 12)}; choose anew by `python -m ensemble.choose`"
        )
    if names or classes == "union":
        return names or union
    if len(shared) < len(union) and classes == "same":
        odd = next(one for one in members if set(one.info.class_names) != sets[0])
        raise UserError(
            f"{odd.path} and {members[0].path} do not have the same classes: "
            f"{list_first(sorted(set(odd.info.class_names) ^ sets[0]), 12)} in one of them only; "
            "take --classes union or --classes intersection"
        )
    if not shared:
        raise UserError("the checkpoints have no class in common: take --classes union")
    return shared
