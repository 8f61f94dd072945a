"""Probabilities of several models for the same images, each image decoded once."""

import json
from collections.abc import Callable, Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from core.data.images.decode import resize
from core.errors import UserError
from ensemble.predict.config import MergeConfig
from ensemble.predict.ensemble import Ensemble
from ensemble.predict.merge import Probabilities, merge_models, merge_views
from ensemble.predict.tta import VIEWS


class Predictor:
    """An ensemble on a device: all its models see the same views of the same images."""

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

    @property
    def identity(self) -> str:
        """Text that differs for other models, views, precisions or versions of PyTorch."""
        device = self.fabric.device.type
        with self.fabric.autocast():
            cast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        digests = [member.digest for member in self.ensemble.members]
        views = [self.merge.views, self.merge.tta_merge_mode]
        return json.dumps(
            [*digests, *self.class_names, *views, device, str(cast), torch.__version__]
        )

    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor]) -> NDArray[np.float32]:
        """Probabilities (M, B, C) of uint8 (B, 1, size, size) for each of the ensemble's sizes.

        The views are merged; a class that a model lacks is NaN. Raises UserError where a model
        gives what is not finite.
        """
        members, views = self.ensemble.members, {}
        for size, pixels in zip(self.ensemble.sizes, images, strict=True):
            scaled = pixels.to(self.fabric.device, non_blocking=True) / 255
            views[size] = [view(scaled) for view in VIEWS[self.merge.views]]
        found = []
        for member in members:
            with self.fabric.autocast():
                logits = [member.model(view).float() for view in views[member.info.image_size]]
            found.append(merge_views(torch.stack(logits).sigmoid(), self.merge.tta_merge_mode))
        shape = len(members), len(images[0]), len(self.class_names)
        merged = np.full(shape, np.nan, dtype=np.float32)
        # after all models, so that the device does not wait between two
        for number, member in enumerate(members):
            probabilities = found[number].cpu().numpy()
            if not np.isfinite(probabilities).all():
                raise UserError(f"{member.path} gives probabilities that are not finite")
            places, own = member.places(self.class_names)
            merged[number][:, places] = probabilities[:, own]
        return merged

    def of_image(self, pixels: NDArray[np.uint8]) -> Probabilities:
        """Probabilities (M, 1, C) of one image, uint8 (H, W) of any size."""
        sizes = [torch.from_numpy(resize(pixels, size))[None, None] for size in self.ensemble.sizes]
        return self(sizes).astype(np.float64)

    def merged(self, probabilities: Probabilities) -> Probabilities:
        """Probabilities (M, N, C) of the models → (N, C). rank_mean needs all N at once."""
        return merge_models(probabilities, self.ensemble.shares, self.merge.ensemble_mode)

    def finished(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probabilities (C,) of one image, uint8 (H, W), merged and postprocessed."""
        return self.postprocess(self.merged(self.of_image(pixels)))[0]
