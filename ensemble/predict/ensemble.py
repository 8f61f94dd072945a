"""Ensemble of checkpoints: loading, weights, and classes matched by name."""

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
    """A loaded checkpoint."""

    path: Path
    model: nn.Module
    info: ModelInfo
    digest: str  # SHA-256 of the file

    @classmethod
    def load(cls, path: Path) -> "Member":
        """Load a checkpoint. Raises UserError if it is invalid."""
        model, info = load_model(path)
        with path.open("rb") as file:
            return cls(path, model, info, hashlib.file_digest(file, "sha256").hexdigest())

    def facts(self, name: str) -> dict[str, Any]:
        """JSON object of this name in the checkpoint's metadata; empty if there is none."""
        found = self.info.facts.get(name)
        return found if isinstance(found, dict) else {}

    def summary(self) -> dict[str, Any]:
        """Method, model, image size in pixels, fold, number of classes; None if unknown."""
        fold = self.info.facts.get("fold")
        return {
            "method": self.info.method,
            "model": self.facts("model").get("model"),
            "pixels": self.info.image_size,
            "fold": fold if type(fold) is int else None,
            "classes": len(self.info.class_names),
        }

    def class_indices(self, class_names: Sequence[str]) -> tuple[list[int], list[int]]:
        """Indices of shared classes: (in `class_names`, in the model's own order)."""
        own = {name: index for index, name in enumerate(self.info.class_names)}
        shared = [index for index, name in enumerate(class_names) if name in own]
        return shared, [own[class_names[index]] for index in shared]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """M models, their weights, and the C classes that they predict together.

    shares: (M,), weights of the models, with a sum of 1.
    """

    members: Sequence[Member]
    shares: NDArray[np.float64]
    class_names: Sequence[str]
    resume_states: Sequence[Path] = ()
    """Resume states among the given files, which are not loaded."""

    @classmethod
    def load(cls, config: ModelsConfig, classes: str = "same") -> "Ensemble":
        """Load all checkpoints of `config`.

        The classes are those of its ensemble.json, if it has one; else by `classes`: "union",
        "intersection", or "same", which refuses models that differ. Resume states, which
        `DIR/*.safetensors` includes, are left out. Raises UserError if a file, the weights or
        the classes are invalid.
        """
        names: list[str] = []
        checkpoints, weights, states = _split_states(config.checkpoints, config.weights)
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
        """The image sizes of the models, in pixels a side, in rising order."""
        return sorted({member.info.image_size for member in self.members})

    @property
    def digest_sizes(self) -> list[int]:
        """Image sizes of the digests in the checkpoints, in pixels a side, in rising order."""
        found = (one.info.data_digests for one in self.members)
        return sorted({size for digests in found if digests for size in digests.sizes()})

    @property
    def unlearned(self) -> list[str]:
        """Classes without a positive in the training of every model that has them.

        A model without counts, or one that began from another checkpoint, may have learnt them.
        """

        def is_unlearned(member: Member, name: str) -> bool:
            count = member.facts("training_positives").get(name)
            return (
                type(count) is int and count == 0 and not member.facts("settings").get("init_from")
            )

        return [
            name
            for name in self.class_names
            if all(is_unlearned(one, name) for one in self.members if name in one.info.class_names)
        ]

    def check_class(self, name: str) -> None:
        """Raise UserError with the most similar name if the ensemble lacks this class."""
        if name not in self.class_names:
            raise UserError(f"unknown class '{name[:200]}'{suggest_name(name, self.class_names)}")

    def labels(self) -> list[str]:
        """Short unique name of each model: method and fold, and a number if needed."""
        pairs = [(one.info.method, one.summary()["fold"]) for one in self.members]
        short = [method if fold is None else f"{method} fold {fold}" for method, fold in pairs]
        return [
            f"{name} ({short[: place + 1].count(name)})" if short.count(name) > 1 else name
            for place, name in enumerate(short)
        ]

    def __str__(self) -> str:
        """A line for each model with its weight, then the classes that some models lack and those
        that none has learnt."""
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
        if unlearned := self.unlearned:
            its, it = ("its", "it") if len(unlearned) == 1 else ("their", "them")
            lines.append(
                f"Warning: {list_first(unlearned)} had no positive label in training, so {its} "
                f"predictions mean nothing: leave {it} out with --labels in training."
            )
        if self.resume_states:
            lines.append(f"left out     {_describe_states(self.resume_states)}")
        return "\n".join(lines)


def _split_states(
    paths: Sequence[Path], weights: Sequence[float]
) -> tuple[list[Path], list[float], list[Path]]:
    """Split `paths` by name into checkpoints with their weights, and resume states.

    `weights`: one for each path or for each checkpoint. Raises UserError without a checkpoint.
    """
    is_model = [not path.name.endswith(STATE_ENDING) for path in paths]
    checkpoints = list(compress(paths, is_model))
    states = [path for path in paths if path not in checkpoints]
    if states and not checkpoints:
        raise UserError(f"{_describe_states(states)}; give the files without .state in the name")
    if len(weights) == len(paths):
        weights = list(compress(weights, is_model))
    return checkpoints, list(weights), states


def _describe_states(paths: Sequence[Path]) -> str:
    one = len(paths) == 1
    kind = "a resume state, not a checkpoint" if one else "resume states, not checkpoints"
    return f"{list_first(list(map(str, paths)))}: {kind}"


def _merge_classes(members: Sequence[Member], names: list[str], classes: str) -> list[str]:
    """Classes of the ensemble: `names` of an ensemble.json if given, else those of the models."""
    sets = [set(member.info.class_names) for member in members]
    union = list(dict.fromkeys(name for one in members for name in one.info.class_names))
    shared = [name for name in union if all(name in one for one in sets)]
    if missing := [name for name in names if name not in union]:
        raise UserError(
            f"no checkpoint of the ensemble has {len(missing):,} of its {len(names):,} classes: "
            f"{list_first(missing, 12)}; rerun `python -m ensemble.choose`"
        )
    if names or classes == "union":
        return names or union
    if len(shared) < len(union) and classes == "same":
        odd = next(one for one in members if set(one.info.class_names) != sets[0])
        raise UserError(
            f"{odd.path} and {members[0].path} do not have the same classes: "
            f"{list_first(sorted(set(odd.info.class_names) ^ sets[0]), 12)} in one of them only; "
            "add --classes union or --classes intersection"
        )
    if not shared:
        raise UserError("the checkpoints have no class in common: add --classes union")
    return shared
