"""Predictor: probabilities of an ensemble for decoded images."""

import json
from collections.abc import Callable, Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from core.data.images.decode import resize
from core.errors import UserError
from core.runtime.precision import IMAGES, choose_precision
from ensemble.predict.config import MergeConfig
from ensemble.predict.ensemble import Ensemble
from ensemble.predict.merge import Probabilities, merge_copies, merge_models
from ensemble.predict.tta import TTA


class Predictor:
    """Ensemble on a device: all models see the same augmented copies of the same images."""

    def __init__(
        self,
        fabric: Fabric,
        ensemble: Ensemble,
        merge: MergeConfig,
        postprocess: Callable[[Probabilities], Probabilities] = lambda merged: merged,
    ) -> None:
        self.fabric, self.ensemble, self.merge = fabric, ensemble, merge
        self.postprocess = postprocess
        self.class_names = list(ensemble.class_names)
        for member in ensemble.members:
            member.model.to(memory_format=torch.channels_last).to(fabric.device)
        blank = [torch.zeros(IMAGES, 1, size, size) for size in ensemble.sizes]
        choose_precision(fabric, lambda: self(blank), IMAGES)

    @property
    def identity(self) -> str:
        """Cache key: models, classes, augmented copies, precision and version of PyTorch."""
        device = self.fabric.device.type
        with self.fabric.autocast():
            cast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        digests = [member.digest for member in self.ensemble.members]
        copies = [self.merge.tta, self.merge.tta_merge_mode]
        return json.dumps(
            [*digests, *self.class_names, *copies, device, str(cast), torch.__version__]
        )

    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor]) -> NDArray[np.float32]:
        """Probabilities (M, B, C) of uint8 (B, 1, size, size), one for each size of the ensemble.

        Augmented copies are merged; a class that a model lacks is NaN. Raises UserError if a
        model gives probabilities that are not finite.
        """
        members, copies = self.ensemble.members, {}
        for size, pixels in zip(self.ensemble.sizes, images, strict=True):
            scaled = pixels.to(self.fabric.device, non_blocking=True) / 255
            copies[size] = [transform(scaled) for transform in TTA[self.merge.tta]]
        found = []
        for member in members:
            with self.fabric.autocast():
                logits = [member.model(copy).float() for copy in copies[member.info.image_size]]
            found.append(merge_copies(torch.stack(logits).sigmoid(), self.merge.tta_merge_mode))
        shape = len(members), len(images[0]), len(self.class_names)
        merged = np.full(shape, np.nan, dtype=np.float32)
        # after all models, so that the device does not wait between them
        for number, member in enumerate(members):
            probabilities = found[number].cpu().numpy()
            if not np.isfinite(probabilities).all():
                raise UserError(
                    f"{member.path} gives probabilities that are not finite: leave it out"
                )
            shared, own = member.class_indices(self.class_names)
            merged[number][:, shared] = probabilities[:, own]
        return merged

    def predict_models(self, pixels: NDArray[np.uint8]) -> Probabilities:
        """Probabilities (M, 1, C) of each model for one image, uint8 (H, W) of any size.

        NaN for a class that a model lacks. Raises UserError as calling the predictor does.
        """
        sizes = [torch.from_numpy(resize(pixels, size))[None, None] for size in self.ensemble.sizes]
        return self(sizes).astype(np.float64)

    def merge_models(self, probabilities: Probabilities) -> Probabilities:
        """Merge probabilities (M, N, C) into (N, C). rank_mean needs all N images at once."""
        return merge_models(probabilities, self.ensemble.shares, self.merge.ensemble_mode)

    def predict_image(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Merged and postprocessed probabilities (C,) of one image, uint8 (H, W).

        Raises UserError as calling the predictor does.
        """
        return self.postprocess(self.merge_models(self.predict_models(pixels)))[0]
