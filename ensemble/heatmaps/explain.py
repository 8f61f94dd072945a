"""What `ensemble.explain` computes of each image, draws and counts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from tqdm import tqdm

from core.data.images.decode import resize, within
from core.data.images.find_files import IMAGE_ENDINGS
from core.data.tables.label_table import LabelTable
from core.errors import UserError
from ensemble.heatmaps.config import Config
from ensemble.heatmaps.draw import DOTS_OF_SHEET, Row, draw, save
from ensemble.heatmaps.maps import LONGEST_SHOWN, ensemble_maps, heat_maps
from ensemble.heatmaps.pointing_game import Box, Pointing
from ensemble.predict.members import Member
from ensemble.predict.merge import merge_models
from ensemble.predict.predictor import Predictor, Views

# of sheet.png: more rows make a picture that nothing can show
SHEET_ROWS, SHEET_SIDE = 100, 256
ENSEMBLE = "ensemble"


@dataclass(frozen=True, eq=False)
class Explained:
    """What came of it."""

    drawn: int
    """images"""
    rows: int
    """classes of images, each a row of a picture"""
    pointing: pd.DataFrame | None
    """see `Pointing.table`; None without boxes"""


class Explainer:
    """Models, and what they say of an image and where."""

    def __init__(
        self,
        fabric: Fabric,
        members: Sequence[Member],
        shares: NDArray[np.float64],
        class_names: Sequence[str],
    ) -> None:
        self.predictor = Predictor(fabric, members, class_names, Views(names="none"))
        self.members, self.shares = members, shares
        self.class_names = list(class_names)
        self.labels = model_labels(members)
        if len(members) > 1:
            self.labels.append(ENSEMBLE)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Of an image (H, W), without views: (M, C), and the ensemble's last where there are
        several models. NaN where a model lacks a class."""
        sizes = [
            torch.from_numpy(resize(pixels, size))[None, None] for size in self.predictor.sizes
        ]
        each = self.predictor(sizes).astype(np.float64)
        merged = merge_models(each, self.shares, "weighted_mean")
        return np.concatenate([each[:, 0], merged])[: len(self.labels)]

    def maps(
        self, pixels: NDArray[np.uint8], classes: Sequence[str], shape: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Heat maps (M, K, H, W) of that `shape`, the ensemble's last as above."""
        each, mean = ensemble_maps(self.members, self.shares, pixels, classes, shape)
        return np.concatenate([each, mean[None]])[: len(self.labels)]


def model_labels(members: Sequence[Member]) -> list[str]:
    """A short name for each model: its method and fold, numbered where that is not one's own."""
    short = []
    for member in members:
        facts = member.told()
        fold = "" if facts["fold"] is None else f" fold {facts['fold']}"
        short.append(f"{member.info.method}{fold}")
    return [
        f"{name} ({short[: place + 1].count(name)})" if short.count(name) > 1 else name
        for place, name in enumerate(short)
    ]


def check_explainable(members: Sequence[Member]) -> None:
    """Raise UserError where a model has no heat maps, before any image is read."""
    for member in members:
        size = member.info.image_size
        try:
            heat_maps(member.model, torch.zeros(1, 1, size, size, dtype=torch.uint8), [0])
        except UserError as error:
            raise UserError(f"{member.path}: {error}") from error


def explain_images(
    explainer: Explainer,
    images: LabelTable,
    config: Config,
    folder: Path,
    lesions: Mapping[int, Mapping[str, list[Box]]],
    measured: Sequence[str],
) -> Explained:
    """Write the pictures of the first images, maps.csv, and with `measured` pointing.csv to
    `folder`.

    `lesions`: by an image's place its boxes by class. All images that show one of the classes
    `measured` are counted. Raises UserError where an image
    cannot be read, and where a box leaves its image.
    """
    for sentence in images.images.check_sizes(explainer.predictor.sizes):
        print(sentence)
    pointing = Pointing(explainer.labels)
    sheet: list[Row] = []
    listed: list[dict[str, object]] = []
    drawn = range(min(config.draw, len(images)))
    needed = sorted({*drawn, *lesions})
    for place in tqdm(needed, desc="explaining", unit="img", disable=None):
        pixels = images.images.read(place)
        small = within(pixels, LONGEST_SHOWN)
        known = lesions.get(place, {})
        _check_inside(known, pixels, images.ids[place])
        known = {name: _scaled(listed, pixels, small) for name, listed in known.items()}
        count = [name for name in measured if name in known]
        said = explainer.probabilities(pixels)
        show = _shown(explainer, said, config) if place in drawn else []
        classes = list(dict.fromkeys([*show, *count]))
        if not classes:
            continue
        heats = explainer.maps(pixels, classes, small.shape)
        for name in count:
            pointing.count(name, known[name], list(heats[:, classes.index(name)]))
        if not show:
            continue
        columns = [explainer.class_names.index(name) for name in show]
        rows = [
            Row(name, small, known.get(name, ()), list(heats[:, number]), said[:, column].tolist())
            for number, (name, column) in enumerate(zip(show, columns, strict=True))
        ]
        file = f"{place + 1:04}_{_file_name(images.ids[place])}.png"
        save(draw(rows, explainer.labels), folder / file)
        sheet += [_for_sheet(row, images.ids[place]) for row in rows[: SHEET_ROWS - len(sheet)]]
        listed += [
            {
                "ImageID": images.ids[place],
                "class": row.label,
                "model": model,
                "probability": probability,
                "file": file,
            }
            for row in rows
            for model, probability in zip(explainer.labels, row.probabilities, strict=True)
        ]
    save(draw(sheet, explainer.labels), folder / "sheet.png", DOTS_OF_SHEET)
    rows_drawn = len(listed) // len(explainer.labels)
    frame = pd.DataFrame(listed)
    frame.to_csv(folder / "maps.csv", index=False, float_format="%.8g")
    if not measured:
        return Explained(len(drawn), rows_drawn, None)
    table = pointing.table(measured)
    table.to_csv(folder / "pointing.csv", index=False, float_format="%.8g")
    return Explained(len(drawn), rows_drawn, table)


def _shown(explainer: Explainer, said: NDArray[np.float64], config: Config) -> list[str]:
    """The classes asked for, or the most probable ones of `said` (M, C), by its last row."""
    if config.classes:
        return list(dict.fromkeys(config.classes))
    order = np.argsort(-said[-1], kind="stable")[: config.top]
    return [explainer.class_names[column] for column in order]


def _file_name(image: str) -> str:
    """An image's name without its ending, as part of a file's name on any disk."""
    bare = Path(image).stem if image.lower().endswith(IMAGE_ENDINGS) else image
    return re.sub(r"[^A-Za-z0-9._-]", "_", bare)[:80]


def _for_sheet(row: Row, image: str) -> Row:
    """The row under its image's name too, and small: a sheet has many."""
    pixels = within(row.pixels, SHEET_SIDE)
    height, width = pixels.shape
    return replace(
        row,
        label=f"{image}\n{row.label}",
        pixels=pixels,
        boxes=_scaled(row.boxes, row.pixels, pixels),
        heats=[cv2.resize(heat, (width, height)).astype(np.float32) for heat in row.heats],
    )


def _check_inside(
    boxes: Mapping[str, Sequence[Box]], pixels: NDArray[np.uint8], image: str
) -> None:
    """Raise UserError where a box leaves its image: it was drawn at another size."""
    height, width = pixels.shape
    for name, listed in boxes.items():
        if any(x1 > width or y1 > height for _, _, x1, y1 in listed):
            raise UserError(
                f"a box of '{name}' leaves the image {image} of {width} x {height} pixels: give "
                "the images at the size at which the boxes were drawn"
            )


def _scaled(boxes: Sequence[Box], pixels: NDArray[np.uint8], small: NDArray[np.uint8]) -> list[Box]:
    """Boxes of an image as boxes of the smaller one."""
    y, x = (of / by for of, by in zip(small.shape, pixels.shape, strict=True))
    return [(x0 * x, y0 * y, x1 * x, y1 * y) for x0, y0, x1, y1 in boxes]
