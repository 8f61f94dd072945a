"""Ensemble prediction from pixels as one module, for export to ONNX."""

import torch
from torch import Tensor, nn

from core.errors import UserError, list_first
from ensemble.exporting.resize_graph import resize_in_graph
from ensemble.predict.calibration import SMALLEST, Calibration, Identity
from ensemble.predict.config import MergeConfig
from ensemble.predict.ensemble import Ensemble
from ensemble.predict.merge import merge_copies
from ensemble.predict.tta import TTA


class EnsembleGraph(nn.Module):
    """Images (B, 1, S, S), uint8 or float in [0, 1] → probabilities (B, C) float32.

    With `any_size` images (B, 1, H, W) are resized to squares, floats rounded to 8 bits. Augmented
    copies, then models are merged, then each class is calibrated by none, temperature or Platt.
    Raises UserError for the median if a model lacks a class.
    """

    known: Tensor
    shares: Tensor
    slope: Tensor
    offset: Tensor
    is_mapped: Tensor

    def __init__(
        self,
        ensemble: Ensemble,
        merge: MergeConfig,
        calibration: Calibration | None,
        *,
        any_size: bool = False,
    ) -> None:
        super().__init__()
        self.size = common_size(ensemble) if any_size else 0
        self.transforms, self.copy_merge = TTA[merge.tta], merge.tta_merge_mode
        self.mode, self.calibrated = merge.ensemble_mode, calibration is not None
        self.models = nn.ModuleList(member.model for member in ensemble.members)
        names = ensemble.class_names
        known = torch.zeros(len(ensemble.members), len(names))
        for number, member in enumerate(ensemble.members):
            places, own = member.class_indices(names)
            known[number, places] = 1
            # a class that the model lacks uses column 0 with a share of 0
            columns = torch.zeros(len(names), dtype=torch.long)
            columns[places] = torch.tensor(own)
            self.register_buffer(f"columns_{number}", columns)
        if self.mode == "median" and not known.all():
            raise UserError(
                "--ensemble_mode median cannot be exported if models lack classes: choose "
                "--classes intersection, or another mode"
            )
        portions = torch.tensor(ensemble.shares, dtype=torch.float64)[:, None] * known
        self.register_buffer("known", known)
        self.register_buffer("shares", (portions / portions.sum(dim=0)).float())
        if calibration is not None:
            maps = [calibration.classes[name] for name in names]
            slopes = [getattr(one, "slope", 1 / getattr(one, "temperature", 1.0)) for one in maps]
            offsets = [getattr(one, "offset", 0.0) for one in maps]
            mapped = [type(one) is not Identity for one in maps]
            for name, values in (("slope", slopes), ("offset", offsets), ("is_mapped", mapped)):
                self.register_buffer(name, torch.tensor(values))

    def forward(self, images: Tensor) -> Tensor:
        if self.size:
            grey = images if images.dtype == torch.uint8 else (images * 255).round()
            scaled = resize_in_graph(grey, self.size) / 255
        else:
            scaled = images / 255 if images.dtype == torch.uint8 else images
        copies = torch.cat([transform(scaled) for transform in self.transforms])
        each = []
        for number, model in enumerate(self.models):
            logits = model(copies).float()
            by_copy = logits.sigmoid().reshape(-1, images.shape[0], logits.shape[-1])
            merged = merge_copies(by_copy, self.copy_merge)
            each.append(merged.index_select(1, self.get_buffer(f"columns_{number}")))
        merged = self._merge(torch.stack(each))
        if not self.calibrated:
            return merged
        logits = merged.clamp(SMALLEST, 1 - SMALLEST).logit()
        return torch.where(self.is_mapped, (self.slope * logits + self.offset).sigmoid(), merged)

    def _merge(self, each: Tensor) -> Tensor:
        """Merge probabilities (M, B, C) into (B, C), as `merge.merge_models` does."""
        if self.mode == "max":
            return (each * self.known[:, None]).amax(dim=0)
        if self.mode == "median":
            return torch.quantile(each, 0.5, dim=0)
        shares = self.shares[:, None]
        if self.mode == "weighted_mean":
            return (shares * each).sum(dim=0)
        clipped = each.clamp(SMALLEST, 1 - SMALLEST)
        if self.mode == "gmean":
            return (shares * clipped.log()).sum(dim=0).exp()
        assert self.mode == "logit_mean"
        return (shares * clipped.logit()).sum(dim=0).sigmoid()


def common_size(ensemble: Ensemble) -> int:
    """Image size of all members. Raises UserError if they differ."""
    size, *others = ensemble.sizes
    if others:
        raise UserError(
            f"the checkpoints have image sizes of {list_first(ensemble.sizes, 12)} pixels, but a "
            "graph has one size: export each size by itself, or use --format folder"
        )
    return size
