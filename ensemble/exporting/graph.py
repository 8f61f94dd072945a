"""All that `ensemble.infer` does with an image's pixels, as one graph: what ONNX holds."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import UserError, some
from ensemble.predict.calibration import SMALLEST, Calibration
from ensemble.predict.members import Member
from ensemble.predict.merge import merge_views
from ensemble.predict.predictor import Views
from ensemble.predict.tta import VIEWS


class Merged(nn.Module):
    """Images (B, 1, S, S), uint8 or float in [0, 1] → probabilities (B, C) float32.

    Each model sees all views in one batch; views, then models are merged, then each class is
    calibrated. Raises UserError where the median is asked of classes that not all members have.
    """

    known: Tensor
    shares: Tensor

    def __init__(
        self,
        members: Sequence[Member],
        shares: NDArray[Any],
        class_names: Sequence[str],
        views: Views,
        mode: str,
        calibration: Calibration | None,
    ) -> None:
        super().__init__()
        self.views, self.mode = views, mode
        self.models = nn.ModuleList(member.model for member in members)
        known = torch.zeros(len(members), len(class_names))
        for number, member in enumerate(members):
            places, own = member.places(class_names)
            known[number, places] = 1
            # a class that a model lacks takes any of its columns, and no share
            columns = torch.zeros(len(class_names), dtype=torch.long)
            columns[places] = torch.tensor(own)
            self.register_buffer(f"columns_{number}", columns)
        if mode == "median" and not known.all():
            raise UserError(
                "--ensemble_mode median of classes that not every model has cannot be one graph: "
                "take --classes intersection, or another mode"
            )
        portions = torch.tensor(shares, dtype=torch.float64)[:, None] * known
        self.register_buffer("known", known)
        self.register_buffer("shares", (portions / portions.sum(dim=0)).float())
        self.calibration = None
        if calibration is not None:
            self.calibration = Maps(calibration, class_names)

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities (B, C)."""
        scaled = images / 255 if images.dtype == torch.uint8 else images
        views = torch.cat([view(scaled) for view in VIEWS[self.views.names]])
        said = []
        for number, model in enumerate(self.models):
            logits = model(views).float()
            each = logits.sigmoid().reshape(-1, images.shape[0], logits.shape[-1])
            merged = merge_views(each, self.views.merge)
            said.append(merged.index_select(1, self.get_buffer(f"columns_{number}")))
        merged = self._merge(torch.stack(said))
        return merged if self.calibration is None else self.calibration(merged)

    def _merge(self, said: Tensor) -> Tensor:
        """Probabilities (M, B, C) of the models → (B, C), as `merge.merge_models` does."""
        if self.mode == "max":
            return (said * self.known[:, None]).amax(dim=0)
        if self.mode == "median":
            return torch.quantile(said, 0.5, dim=0)
        shares = self.shares[:, None]
        if self.mode == "weighted_mean":
            return (shares * said).sum(dim=0)
        clipped = said.clamp(SMALLEST, 1 - SMALLEST)
        if self.mode == "gmean":
            return (shares * clipped.log()).sum(dim=0).exp()
        assert self.mode == "logit_mean"
        return (shares * clipped.logit()).sum(dim=0).sigmoid()


class Maps(nn.Module):
    """Calibration of each class by none, temperature or Platt (`in_graph` says whether it is)."""

    slope: Tensor
    offset: Tensor
    stays: Tensor

    def __init__(self, calibration: Calibration, class_names: Sequence[str]) -> None:
        super().__init__()
        maps = [calibration.classes[name] for name in class_names]
        slopes = [
            1 / one.parameters["temperature"]
            if one.method == "temperature"
            else one.parameters.get("slope", 1.0)
            for one in maps
        ]
        offsets = [one.parameters.get("offset", 0.0) for one in maps]
        self.register_buffer("slope", torch.tensor(slopes, dtype=torch.float32))
        self.register_buffer("offset", torch.tensor(offsets, dtype=torch.float32))
        self.register_buffer("stays", torch.tensor([one.method == "identity" for one in maps]))

    def forward(self, probabilities: Tensor) -> Tensor:
        """Calibrated probabilities (B, C)."""
        logits = probabilities.clamp(SMALLEST, 1 - SMALLEST).logit()
        return torch.where(self.stays, probabilities, (self.slope * logits + self.offset).sigmoid())


def in_graph(calibration: Calibration, class_names: Sequence[str]) -> bool:
    """Whether all maps are smooth enough for 32 bits: an isotonic one may rise steeply anywhere.

    Raises UserError where a class has no map.
    """
    calibration.thresholds(class_names, gated=False)
    return all(calibration.classes[name].method != "isotonic" for name in class_names)


def one_size(members: Sequence[Member]) -> int:
    """The image size of all members. Raises UserError where there are several."""
    sizes = sorted({member.info.image_size for member in members})
    if len(sizes) > 1:
        raise UserError(
            f"the checkpoints take images of {some(sizes, 12)} pixels, and one graph takes images "
            "of one size: export those of each size by themselves, or all by --format folder"
        )
    return sizes[0]
