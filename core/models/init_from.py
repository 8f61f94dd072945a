"""Initial weights from another run's checkpoint: the backbone, and rows of the head by class."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models import split_model_name_tag
from torch import Tensor, nn

from core.errors import UserError, list_first
from core.models.checkpoint import find_mismatches, find_not_finite, select_prefix
from core.models.load import ModelInfo, load_model


def find_initial_weights(
    method: str,
    config: Any,
    class_names: Sequence[str],
    *,
    path: Path | None = None,
    flag: str = "--init_from",
) -> "InitialWeights | None":
    """Read initial weights for `class_names` from the checkpoint at `path` or of --init_from.

    Raises UserError with `flag` if it is damaged, of another network, not finite, or in --out_dir.
    """
    path = path or config.model.init_from
    if path is None:
        return None
    if path.resolve().parent == config.run.out_dir.resolve():
        raise UserError(
            f"{flag} {path} is in --out_dir, the folder of the new checkpoints: give another "
            "--out_dir"
        )
    source, info = load_model(path)
    theirs, ours = info.facts["model"]["model"], config.model.model
    # a tag names pretrained weights, not the network
    if split_model_name_tag(theirs)[0] != split_model_name_tag(ours)[0]:
        raise UserError(
            f"{flag} {path} has --model {theirs} and this run --model {ours}: give the same one"
        )
    tensors = source.state_dict()
    if spoiled := find_not_finite(tensors):
        raise UserError(
            f"{flag} {path} holds weights that are not finite ({len(spoiled)} of "
            f"{len(tensors)} tensors: {list_first(spoiled)}): give another checkpoint"
        )
    warning = _warn_of_overlap(info, config)
    return InitialWeights(path, info, tensors, method, tuple(class_names), warning)


@dataclass(frozen=True)
class InitialWeights:
    """Weights of a checkpoint for models of `method` with `class_names`.

    Modules of a head declare the class dimensions of their tensors in `class_dimensions`:
    {"weight": (0,)}.
    """

    path: Path
    info: ModelInfo
    tensors: dict[str, Tensor]
    method: str
    class_names: tuple[str, ...]
    warning: str = ""

    @torch.no_grad()
    def copy_into(self, model: nn.Module) -> str:
        """Copy the weights that fit into `model`; returns a description.

        Of the head: tensors without a class dimension, and the rows of shared classes. A head of
        another method or other settings is not copied. A backbone of another image or patch size is
        resampled by timm. Raises UserError if it does not fit.
        """
        backbone = model.get_submodule("backbone")
        theirs, resampled = select_prefix(self.tensors, "backbone."), ""
        if find_mismatches(backbone.state_dict(), theirs):
            theirs, resampled = _resample(backbone, theirs), ", resampled to this size"
        if names := find_mismatches(backbone.state_dict(), theirs):
            raise UserError(
                f"--init_from {self.path} does not fit the backbone of {self.method}: "
                f"{list_first(names)} differ"
            )
        backbone.load_state_dict(theirs)
        start = f"Starts from {self.path}: backbone ({len(theirs)} tensors{resampled})"
        return f"{start}{self._copy_head(model.get_submodule('head'))}{self.warning}"

    def _copy_head(self, head: nn.Module) -> str:
        if self.info.method != self.method:
            return f"; new head, as that of the checkpoint is of {self.info.method}."
        ours, theirs = head.state_dict(), select_prefix(self.tensors, "head.")
        dimensions = class_dimensions(head)
        here, there = self.class_names, self.info.class_names
        if not ours.keys() & theirs.keys():
            kinds = f"{next(iter(theirs))} there, {next(iter(ours))} here"
            return f"; new head, as that of the checkpoint has other layers ({kinds})."
        for name in ours.keys() & theirs.keys():
            shape = list(ours[name].shape)
            for dimension in dimensions.get(name, ()):
                shape[dimension] = len(there)
            if shape != list(theirs[name].shape):
                size, wanted = (" x ".join(map(str, one)) for one in (theirs[name].shape, shape))
                return f"; new head, as its {name} is {size} there and would be {wanted} here."
        shared = [name for name in here if name in there]
        own, other = (
            np.array([*map(classes.index, shared)], dtype=np.int64) for classes in (here, there)
        )
        for name in ours.keys() & theirs.keys():
            of_classes = dimensions.get(name, ())
            rows = theirs[name][_index(theirs[name], of_classes, other)]
            ours[name][_index(ours[name], of_classes, own)] = rows
        new = [name for name in here if name not in there] + sorted(ours.keys() - theirs.keys())
        left_out = sorted(theirs.keys() - ours.keys())
        text = f", head rows of {len(shared)} of {len(here)} classes"
        text += f" ({list_first(shared, 12)})" if shared else ""
        text += f"; new: {list_first(new, 12)}." if new else "."
        return text + (f" Left out: {list_first(left_out)}." if left_out else "")


def _resample(backbone: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same network for another image or patch size; unchanged if timm cannot."""
    network = backbone.get_submodule("network")
    adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    adapted = select_prefix(tensors, "network.")
    others = tensors.keys() - {f"network.{name}" for name in adapted}
    # timm's adapters raise any exception for tensors of another network
    with suppress(Exception):
        adapted = adapt(adapted, network) if adapt else adapted
    own = {name: tensors[name] for name in others}
    return own | {f"network.{name}": tensor for name, tensor in adapted.items()}


def class_dimensions(head: nn.Module) -> dict[str, tuple[int, ...]]:
    """Class dimensions, such as (0,), by the tensor's name in the head's state."""
    return {
        f"{path}.{name}".removeprefix("."): dimensions
        for path, module in head.named_modules()
        for name, dimensions in getattr(module, "class_dimensions", {}).items()
    }


def _index(tensor: Tensor, dimensions: tuple[int, ...], rows: np.ndarray) -> tuple[Tensor, ...]:
    """Index of `rows` along `dimensions` and of everything along the others."""
    ranges = [rows if d in dimensions else np.arange(n) for d, n in enumerate(tensor.shape)]
    return tuple(torch.from_numpy(index) for index in np.ix_(*ranges))


def _warn_of_overlap(info: ModelInfo, config: Any) -> str:
    """A warning if the checkpoint was trained or validated on a table of this run, or "".

    Its settings are untrusted.
    """
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
        f"\nWarning: that checkpoint was trained or validated on images of {list_first(again)} "
        "too: scores on them are too good."
    )
