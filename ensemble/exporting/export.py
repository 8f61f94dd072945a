"""Export of an ensemble: an ONNX graph or a hub folder, with a model card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from core.data.images.decode import resize
from core.data.tables.images_to_predict import find_images
from core.runtime.fabric import versions
from ensemble.exporting.card_scores import FoldScores
from ensemble.exporting.config import Config
from ensemble.exporting.graph import EnsembleGraph, common_size
from ensemble.exporting.hub_folder import needs_recipe, weight_files, write_models
from ensemble.exporting.model_card import write_card
from ensemble.exporting.onnx import (
    BOUND,
    INPUT,
    OUTPUT,
    RESIZED_BOUND,
    largest_difference,
    write_onnx,
)
from ensemble.predict.calibration import Calibration, Identity, Isotonic
from ensemble.predict.ensemble import Ensemble
from ensemble.predict.predictor import Predictor

GRAPH = "model.onnx"
# batch sizes of noise; number of real images for the check, and their batch size
BATCHES = (1, 2, 5)
MOST_IMAGES, BATCH = 16, 5
# of `core.data.images.decode.resize`
INTERPOLATION = (
    "by area (OpenCV's INTER_AREA) on 8 bits, bilinear (INTER_LINEAR) where a side is shorter than "
    "that; the ratio of the sides is not kept"
)
UNCALIBRATED = "The outputs are probabilities that are not calibrated"


@dataclass(frozen=True, eq=False, kw_only=True)
class Export:
    """Models to export, their calibration and their scores."""

    config: Config
    ensemble: Ensemble
    calibration: Calibration | None
    scores: Sequence[FoldScores | None]

    @property
    def maps(self) -> dict[str, Identity]:
        """Calibration map of each class; empty without a calibration."""
        if self.calibration is None:
            return {}
        return {name: self.calibration.classes[name] for name in self.ensemble.class_names}

    @property
    def calibrated(self) -> bool:
        """True if the graph applies the calibration; isotonic maps are too steep for float32."""
        maps = self.maps.values()
        return bool(maps) and not any(isinstance(one, Isotonic) for one in maps)

    def write(self, folder: Path) -> str:
        """Write the model, check it, and write its card; returns a line on the check of a graph.

        Raises UserError as `write_onnx`, `largest_difference` and `write_models` do.
        """
        if self.config.format == "onnx":
            return self._write_graph(folder)
        write_models(folder, self.ensemble, self.calibration)
        self._write_card(folder / "README.md", weight_files(self.ensemble), size=0)
        return ""

    def _write_graph(self, folder: Path) -> str:
        merge, size = self.config.merge, common_size(self.ensemble)
        integers = self.config.input == "uint8"
        applied = self.calibration if self.calibrated else None
        path = folder / GRAPH
        # unequal sides, else the exporter would assume that they are equal
        sides = (size + 3, size + 8) if self.config.any_size else (size, size)
        example = torch.zeros(2, 1, *sides, dtype=torch.uint8 if integers else torch.float32)
        graph = EnsembleGraph(self.ensemble, merge, applied, any_size=self.config.any_size)
        write_onnx(path, graph, example, self._metadata(size))
        # after the graph: the predictor changes the memory layout of the models
        predictor = Predictor(Fabric(accelerator="cpu", devices=1), self.ensemble, merge)

        def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
            square = np.stack([resize(image, size) for image in pixels[:, 0]])[:, None]
            merged = predictor.merge_models(
                predictor([torch.from_numpy(square)]).astype(np.float64)
            )
            return merged if applied is None else applied.apply(merged, predictor.class_names)

        checked = []
        for name, (some_batches, bound) in self._batches(size).items():
            if some_batches:
                largest = largest_difference(
                    path, predict, some_batches, integers=integers, bound=bound
                )
                checked.append(f"{largest:.1e} on {sum(map(len, some_batches))} images of {name}")
        numbers = [str(number) for number, _ in enumerate(self.ensemble.members, start=1)]
        self._write_card(folder / "MODEL_CARD.md", numbers, size=size)
        return "; ".join(checked)

    def _write_card(self, path: Path, names: Sequence[str], *, size: int) -> None:
        """Write the card with `names` of the models; `size` is 0 without a graph."""
        rare = [] if self.calibration is None else self.calibration.too_rare
        write_card(
            path,
            names,
            self.ensemble,
            self.scores,
            {name: one.threshold for name, one in self.maps.items()},
            merge=self.config.merge,
            graph=self._input(size) if size else None,
            calibrated=size > 0 and self.calibrated,
            outputs=self._outputs(),
            has_calibration=self.calibration is not None,
            unlearned=", ".join(self.ensemble.unlearned),
            too_rare=", ".join(name for name in self.maps if name in rare),
            needs_recipe=needs_recipe(self.ensemble),
        )

    def _batches(self, size: int) -> dict[str, tuple[list[NDArray[np.uint8]], float]]:
        """Batches for the check of the graph by their description, and the tolerance for each."""
        random, any_size = np.random.default_rng(0), self.config.any_size

        def noise(*shape: int) -> NDArray[np.uint8]:
            return random.integers(0, 256, shape, dtype=np.uint8)

        batches = {"noise": ([noise(n, 1, size, size) for n in BATCHES], BOUND)}
        if any_size:
            other = noise(2, 1, 2 * size + 5, size + 8)
            batches["noise of another size"] = [other], RESIZED_BOUND
        if self.config.image_dir is None:
            return batches
        images = find_images(self.config.image_dir, self.config.test_csv).images
        places = range(min(MOST_IMAGES, len(images)))
        if any_size:
            batches["X-rays"] = [images.read(at)[None, None] for at in places], RESIZED_BOUND
        else:
            pixels = np.stack([images.load(at, size) for at in places])[:, None]
            batches["X-rays"] = np.split(pixels, range(BATCH, len(pixels), BATCH)), BOUND
        return batches

    def _metadata(self, size: int) -> dict[str, Any]:
        names, merge = list(self.ensemble.class_names), self.config.merge
        where = "in the graph," if self.config.any_size else "before the graph,"
        pixels = "uint8 from 0 to 255" if self.config.input == "uint8" else "float32 from 0 to 1"
        sides = "height, width" if self.config.any_size else f"{size}, {size}"
        models = []
        for member, share in zip(self.ensemble.members, self.ensemble.shares, strict=True):
            more = {"epoch": member.info.facts.get("epoch"), "sha256": member.digest}
            models.append({"share": float(share), **member.summary(), **more})
        found: dict[str, Any] = {
            "made_by": "longtail-cxr; research use only, not a medical device",
            "class_names": names,
            "image_size": size,
            "input": f"{INPUT} (batch, 1, {sides}), grey, {pixels}",
            "resizing": f"{where} to a square of {size} pixels {INTERPOLATION}",
            "output": f"{OUTPUT} (batch, {len(names)}), in the order of class_names",
            "calibrated": self.calibrated,
            "told": self._outputs(),
            "views": merge.tta,
            "view_merge": merge.tta_merge_mode,
            "ensemble_mode": merge.ensemble_mode,
            "models": models,
            "versions": versions(),
        }
        if self.maps:
            found["thresholds"] = {name: one.threshold for name, one in self.maps.items()}
            found["thresholds_are_for"] = "calibrated probabilities"
            found["calibration"] = msgspec.to_builtins(self.maps)
        return found

    def _input(self, size: int) -> dict[str, Any]:
        config = self.config
        return {"size": size, "pixels": config.input, "any_size": config.any_size}

    def _outputs(self) -> str:
        if self.calibrated:
            return "The outputs are calibrated probabilities, not gated by a normal class."
        if not self.maps:
            return f"{UNCALIBRATED}."
        return (
            f"{UNCALIBRATED}: an isotonic map is too steep for float32. Apply the calibration in "
            "the file's metadata to them."
        )
