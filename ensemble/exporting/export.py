"""What `ensemble.export` writes: a graph or a folder of models, each with its card."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from core.data.tables.images_to_predict import find_images
from core.runtime.fabric import versions
from ensemble.exporting.card_scores import FoldScores
from ensemble.exporting.config import Config
from ensemble.exporting.graph import Merged, in_graph, one_size
from ensemble.exporting.hub_folder import needs_recipe, weight_files, write_models
from ensemble.exporting.model_card import write_card
from ensemble.exporting.onnx import (
    INPUT,
    OUTPUT,
    check_bytes,
    largest_difference,
    random_batches,
    write_onnx,
)
from ensemble.predict.calibration import Calibration
from ensemble.predict.members import Member
from ensemble.predict.predictor import Predictor, Views
from ensemble.predict.write_csv import Finish

GRAPH = "model.onnx"
# how many real images are looked at, and how many at a time
MOST_IMAGES, BATCH = 16, 5


@dataclass(frozen=True, eq=False, kw_only=True)
class Export:
    """Models, and what is done with them."""

    config: Config
    members: Sequence[Member]
    shares: NDArray[np.float64]
    class_names: Sequence[str]
    calibration: Calibration | None
    scores: Sequence[FoldScores | None]

    @property
    def thresholds(self) -> dict[str, float]:
        """Of calibrated probabilities, by class; NaN for a class that has none."""
        if self.calibration is None:
            return {}
        found = self.calibration.thresholds(self.class_names, gated=False)
        return dict(zip(self.class_names, found.tolist(), strict=True))

    @property
    def calibrated(self) -> bool:
        """Whether a graph's outputs are."""
        return self.calibration is not None and in_graph(self.calibration, self.class_names)

    def write_graph(self, folder: Path) -> str:
        """Write and check the ONNX file, and the card; gives a line on the check.

        Raises UserError as `write_onnx` and `largest_difference` do, and where an image cannot be
        read.
        """
        config, size = self.config, one_size(self.members)
        integers = config.input == "uint8"
        batches = {"noise": random_batches(size), "X-rays": self._real_batches(size)}
        views = Views(names=config.views, merge=config.tta_merge_mode)
        applied = self.calibration if self.calibrated else None
        graph = Merged(
            self.members, self.shares, self.class_names, views, config.ensemble_mode, applied
        )
        check_bytes(graph)
        path = folder / GRAPH
        write_onnx(path, graph, size, integers=integers, metadata=self._metadata(size))
        # only now: it changes how the models lie in memory
        predict = self._reference(views, applied)
        told = []
        for name, some_batches in batches.items():
            if some_batches:
                largest = largest_difference(
                    path, predict, some_batches, integers=integers, calibrated=self.calibrated
                )
                told.append(f"{largest:.1e} on {sum(map(len, some_batches))} images of {name}")
        self._card(
            folder / "MODEL_CARD.md",
            [str(number) for number, _ in enumerate(self.members, start=1)],
            use=_graph_use(size, integers),
            probabilities=self._told_calibrated(),
            recipe={
                "views": config.views,
                "view_merge": config.tta_merge_mode,
                "mode": config.ensemble_mode,
            },
            calibrated=self.calibrated,
        )
        return "; ".join(told)

    def write_folder(self, folder: Path) -> None:
        """Write weights, settings and the card. Raises UserError as `write_models` does."""
        write_models(folder, self.members, self.shares, self.class_names, self.calibration)
        probabilities = "The model gives logits; by the sigmoid they are probabilities, which are "
        probabilities += "not calibrated"
        if self.calibration is not None:
            probabilities += ": `--calibration calibration.json` does that"
        self._card(
            folder / "README.md",
            weight_files(self.members),
            use=self._folder_use(),
            probabilities=f"{probabilities}.",
            recipe=None,
            calibrated=False,
        )

    def _real_batches(self, size: int) -> list[NDArray[np.uint8]]:
        if self.config.image_dir is None:
            return []
        images = find_images(self.config.image_dir, self.config.test_csv).images
        pixels = [images.load(place, size) for place in range(min(MOST_IMAGES, len(images)))]
        stacked = np.stack(pixels)[:, None]
        return [stacked[start : start + BATCH] for start in range(0, len(stacked), BATCH)]

    def _reference(self, views: Views, applied: Calibration | None) -> Any:
        """uint8 (B, 1, S, S) → probabilities (B, C), by the functions of `ensemble.infer`."""
        fabric = Fabric(accelerator="cpu", devices=1)
        predictor = Predictor(fabric, self.members, self.class_names, views)
        finish = Finish(shares=self.shares, mode=self.config.ensemble_mode)

        def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
            merged = finish.merged(predictor([torch.from_numpy(pixels)]).astype(np.float64))
            return merged if applied is None else applied.apply(merged, self.class_names)

        return predict

    def _metadata(self, size: int) -> dict[str, Any]:
        config = self.config
        pixels = "uint8 from 0 to 255" if config.input == "uint8" else "float32 from 0 to 1"
        found: dict[str, Any] = {
            "made_by": "longtail-cxr; research use only, not a medical device",
            "class_names": list(self.class_names),
            "image_size": size,
            "input": f"{INPUT} (batch, 1, {size}, {size}), grey, {pixels}, resized to a square",
            "output": f"{OUTPUT} (batch, {len(self.class_names)}), in the order of class_names",
            "calibrated": self.calibrated,
            "told": self._told_calibrated(),
            "views": config.views,
            "view_merge": config.tta_merge_mode,
            "ensemble_mode": config.ensemble_mode,
            "models": [
                {
                    "share": float(share),
                    **member.told(),
                    "epoch": member.info.facts.get("epoch"),
                    "sha256": member.digest,
                }
                for member, share in zip(self.members, self.shares, strict=True)
            ],
            "versions": versions(),
        }
        if self.calibration is not None:
            found["thresholds"] = {
                name: None if math.isnan(one) else one for name, one in self.thresholds.items()
            }
            found["thresholds_are_for"] = "calibrated probabilities"
            found["calibration"] = {
                name: {"method": one.method, **one.parameters}
                for name, one in self.calibration.classes.items()
                if name in self.class_names
            }
        return found

    def _told_calibrated(self) -> str:
        if self.calibration is None:
            return "The outputs are probabilities that are not calibrated."
        if self.calibrated:
            return "The outputs are calibrated probabilities, not gated by a normal class."
        return (
            "The outputs are probabilities that are not calibrated: an isotonic map is too steep "
            "for 32 bits. The calibration is in the file's metadata, to be applied to them."
        )

    def _card(self, path: Path, names: Sequence[str], **told: Any) -> None:
        write_card(
            path,
            names,
            self.members,
            self.shares,
            self.class_names,
            self.scores,
            thresholds=self.thresholds,
            front_matter=path.name == "README.md",
            **told,
        )

    def _folder_use(self) -> str:
        config = self.config
        several = len(self.members) > 1
        recipe = needs_recipe(self.members, self.class_names)
        given = "--ensemble ensemble.json" if recipe else "--checkpoints model.safetensors"
        words = [
            "python -m ensemble.infer",
            given,
            "--image_dir images",
            f"--tta_config {config.views} --tta_merge_mode {config.tta_merge_mode}",
        ]
        if several:
            words.append(f"--ensemble_mode {config.ensemble_mode}")
        if self.calibration is not None:
            words.append("--calibration calibration.json")
        lines = ["With longtail-cxr installed, and without the network:", ""]
        if not several:
            lines += [
                "```python",
                "from methods import load_model",
                "",
                'model, info = load_model("this folder")  # in eval mode, with class names',
                "probabilities = model(images).sigmoid()  # uint8 or [0, 1], (B, 1, size, size)",
                "```",
                "",
            ]
        return "\n".join([*lines, "```sh", " ".join(words), "```"])


def _graph_use(size: int, integers: bool) -> str:
    kind, scaled = ("uint8", "") if integers else ("float32", ", divided by 255")
    return "\n".join(
        [
            "```python",
            "import json",
            "import numpy as np",
            "import onnxruntime",
            "",
            f'session = onnxruntime.InferenceSession("{GRAPH}")',
            'names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])',
            f"# grey pixels, resized to a square{scaled}; any number of images",
            f"images = np.zeros((1, 1, {size}, {size}), dtype=np.{kind})",
            f'(probabilities,) = session.run(["{OUTPUT}"], {{"{INPUT}": images}})',
            "```",
        ]
    )
