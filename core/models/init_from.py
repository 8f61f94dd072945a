"""Start a run from another one's weights: the backbone, and rows of the head by class name."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models import split_model_name_tag
from torch import Tensor, nn

from core.errors import UserError, list_first
from core.models.checkpoint import not_finite, part_of, unlike
from core.models.load import ModelInfo, load_model


def find_initial(
    method: str,
    config: Any,
    class_names: Sequence[str],
    *,
    path: Path | None = None,
    flag: str = "--init_from",
) -> "Initial | None":
    """What the checkpoint at `path`, or of --init_from, gives to models for `class_names`.

    Raises UserError, which names `flag`, where it is no whole one, of another network, not finite,
    or where the run would write.
    """
    path = path or config.model.init_from
    if path is None:
        return None
    if path.resolve().parent == config.run.out_dir.resolve():
        raise UserError(
            f"{flag} {path} lies in --out_dir, where the new checkpoints go: give another --out_dir"
        )
    source, info = load_model(path)
    theirs, ours = info.facts["model"]["model"], config.model.model
    # a tag says which weights a network once started from
    if split_model_name_tag(theirs)[0] != split_model_name_tag(ours)[0]:
        raise UserError(
            f"{flag} {path} is of --model {theirs} and this run of --model {ours}: give the "
            "same one"
        )
    tensors = source.state_dict()
    if spoiled := not_finite(tensors):
        raise UserError(
            f"{flag} {path} holds weights that are not finite ({len(spoiled)} of "
            f"{len(tensors)} tensors: {list_first(spoiled)}): take another"
        )
    return Initial(path, info, tensors, method, tuple(class_names), _seen(info, config))


@dataclass(frozen=True)
class Initial:
    """The `tensors` of a checkpoint for models of `method` on `class_names`.

    Modules of a head name the dimensions of their tensors that count classes in
    `class_dimensions`: {"weight": (0,)}.
    """

    path: Path
    info: ModelInfo
    tensors: dict[str, Tensor]
    method: str
    class_names: tuple[str, ...]
    warning: str = ""

    @torch.no_grad()
    def give(self, model: nn.Module) -> str:
        """Copy what fits into `model`, and say what that was.

        Of the head all that counts no classes, and the rows of classes that both have; the rest
        stays as it is. A head of another method or of other settings stays wholly. Raises UserError
        where the backbone does not fit.
        """
        backbone = model.get_submodule("backbone")
        theirs = part_of(self.tensors, "backbone.")
        if names := unlike(backbone.state_dict(), theirs):
            raise UserError(
                f"--init_from {self.path} does not fit the backbone of {self.method}: "
                f"{list_first(names)} differ"
            )
        backbone.load_state_dict(theirs)
        start = f"Starts from {self.path}: backbone ({len(theirs)} tensors)"
        return f"{start}{self._give_head(model.get_submodule('head'))}{self.warning}"

    def _give_head(self, head: nn.Module) -> str:
        if self.info.method != self.method:
            return f"; fresh head, as that one's is of {self.info.method}."
        ours, theirs = head.state_dict(), part_of(self.tensors, "head.")
        dimensions = class_dimensions(head)
        here, there = self.class_names, self.info.class_names
        for name in ours.keys() & theirs.keys():
            shape = list(ours[name].shape)
            for dimension in dimensions.get(name, ()):
                shape[dimension] = len(there)
            if shape != list(theirs[name].shape):
                size, wanted = (" x ".join(map(str, one)) for one in (theirs[name].shape, shape))
                return f"; fresh head, as its {name} is {size} there and would be {wanted} here."
        shared = [name for name in here if name in there]
        own, other = (
            np.array([*map(classes.index, shared)], dtype=np.int64) for classes in (here, there)
        )
        for name in ours.keys() & theirs.keys():
            counted = dimensions.get(name, ())
            rows = theirs[name][_places(theirs[name], counted, other)]
            ours[name][_places(ours[name], counted, own)] = rows
        fresh = [name for name in here if name not in there] + sorted(ours.keys() - theirs.keys())
        left_out = sorted(theirs.keys() - ours.keys())
        text = f", head rows of {len(shared)} of {len(here)} classes"
        text += f" ({list_first(shared, 12)})" if shared else ""
        text += f"; fresh: {list_first(fresh, 12)}." if fresh else "."
        return text + (f" Left out: {list_first(left_out)}." if left_out else "")


def class_dimensions(head: nn.Module) -> dict[str, tuple[int, ...]]:
    """The dimensions that count classes, by the tensor's name in the head's state."""
    return {
        f"{path}.{name}".removeprefix("."): dimensions
        for path, module in head.named_modules()
        for name, dimensions in getattr(module, "class_dimensions", {}).items()
    }


def _places(tensor: Tensor, dimensions: tuple[int, ...], rows: np.ndarray) -> tuple[Tensor, ...]:
    """The index of `rows` along `dimensions`, and of everything along the others."""
    ranges = [rows if d in dimensions else np.arange(n) for d, n in enumerate(tensor.shape)]
    return tuple(torch.from_numpy(places) for places in np.ix_(*ranges))


def _seen(info: ModelInfo, config: Any) -> str:
    """A warning where the checkpoint was trained or validated on a table of this run; its settings
    are a file's, and may be anything."""
    settings = info.facts.get("settings")
    before = settings if isinstance(settings, dict) else {}
    values = [before.get("train_csv"), before.get("val_csv")]
    texts = [one for value in values for one in (value if isinstance(value, list) else [value])]
    known = {os.path.abspath(text) for text in texts if isinstance(text, str)}
    ours = (*config.data.train_csv, *config.data.val_csv)
    again = [csv for csv in ours if os.path.abspath(csv) in known]
    if not again:
        return ""
    return (
        f"\nWarning: it was trained or validated on images of {list_first(again)} too: what is "
        "measured here on those is too good."
    )
