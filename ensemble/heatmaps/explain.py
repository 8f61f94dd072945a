"""Heat maps, figures and the pointing game of `ensemble.explain`, image by image."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.data.images.decode import shrink_to
from core.data.images.find_files import IMAGE_ENDINGS
from core.data.tables.label_table import LabelTable
from core.errors import UserError
from core.runtime.log import logger
from core.runtime.progress_bar import ProgressBar
from ensemble.heatmaps.config import Config
from ensemble.heatmaps.draw import DOTS_OF_SHEET, DOTS_PER_INCH, Row, draw
from ensemble.heatmaps.maps import LONGEST_SHOWN, ensemble_maps, member_maps
from ensemble.heatmaps.pointing_game import Box, Pointing
from ensemble.predict.predictor import Predictor

# limits of sheet.png: viewers fail on larger images
SHEET_ROWS, SHEET_SIDE = 100, 256
ENSEMBLE, UNCALIBRATED = "ensemble", "uncalibrated"


def explain_images(
    predictor: Predictor,
    images: LabelTable,
    config: Config,
    folder: Path,
    lesions: Mapping[int, Mapping[str, list[Box]]],
    measured: Sequence[str],
) -> tuple[int, pd.DataFrame | None]:
    """Write the pictures of the first images, maps.csv, and with `measured` pointing.csv.

    lesions: boxes by class, by an image's index; those of the classes `measured` are counted.
    Returns the number of drawn maps, and `Pointing.table`. Raises UserError if a model has no heat
    maps, an image is unreadable, or a box is outside of its image.
    """
    ensemble, class_names = predictor.ensemble, predictor.class_names
    # fails early for a model without heat maps
    for member in ensemble.members:
        member_maps(member, np.zeros((8, 8), dtype=np.uint8), [0])
    for sentence in images.images.check_sizes(ensemble.sizes):
        logger.info(sentence)
    labels, states = _labels_and_states(predictor, config)
    pointing = Pointing(labels)
    sheet: list[Row] = []
    listed: list[dict[str, object]] = []
    drawn = range(min(config.draw, len(images)))
    for place in ProgressBar(
        sorted({*drawn, *lesions}), desc="explaining", unit="img", disable=None
    ):
        pixels, image = images.images.read(place), images.ids[place]
        small = shrink_to(pixels, LONGEST_SHOWN)
        boxes = lesions.get(place, {})
        _check_inside(boxes, pixels, image)
        boxes = {name: _scaled(some_boxes, pixels, small) for name, some_boxes in boxes.items()}
        each = predictor.predict_models(pixels)
        merged = predictor.postprocess(predictor.merge_models(each))
        # several models: the ensemble is last
        found = np.concatenate([each[:, 0], merged])[-len(labels) :]
        most_probable = np.argsort(-found[-1], kind="stable")[: config.top]
        show = config.classes or [class_names[column] for column in most_probable]
        show = list(dict.fromkeys(show)) if place in drawn else []
        count = [name for name in measured if name in boxes]
        classes = list(dict.fromkeys([*show, *count]))
        if not classes:
            continue
        maps, mean = ensemble_maps(ensemble, pixels, classes, small.shape)
        heats = dict(zip(classes, np.stack([*maps, mean][: len(labels)], axis=1), strict=True))
        for name in count:
            pointing.count(name, boxes[name], list(heats[name]))
        if not show:
            continue
        own = {name: found[:, class_names.index(name)].tolist() for name in show}
        rows = [Row(n, small, boxes.get(n, ()), [*heats[n]], own[n], states) for n in show]
        file = f"{place + 1:04}_{_file_name(image)}.png"
        draw(rows, labels).savefig(folder / file, dpi=DOTS_PER_INCH)
        sheet += [_for_sheet(row, image) for row in rows[: SHEET_ROWS - len(sheet)]]
        listed += _rows_of_csv(rows, labels, image, file)
    draw(sheet, labels).savefig(folder / "sheet.png", dpi=DOTS_OF_SHEET)
    points = pointing.table(measured) if measured else None
    for name, table in (("maps.csv", pd.DataFrame(listed)), ("pointing.csv", points)):
        if table is not None:
            table.to_csv(folder / name, index=False, float_format="%.8g")
    return len(listed) // len(labels), points


def _labels_and_states(predictor: Predictor, config: Config) -> tuple[list[str], list[str]]:
    """Names of the models, the ensemble of several last, and calibration of their probabilities."""
    labels = predictor.ensemble.labels()
    if len(labels) > 1:
        labels.append(ENSEMBLE)
    states = [UNCALIBRATED] * len(labels)
    if config.postprocessing.calibration is not None:
        states[-1] = "calibrated"
    return labels, states


def _rows_of_csv(
    rows: Sequence[Row], labels: Sequence[str], image: str, file: str
) -> list[dict[str, object]]:
    """Rows of maps.csv, one for each class and model of an image."""
    return [
        {
            **{"ImageID": image, "class": row.label, "model": model},
            **{"probability": one, "calibration": state, "file": file},
        }
        for row in rows
        for model, one, state in zip(labels, row.probabilities, row.states, strict=True)
    ]


def _file_name(image: str) -> str:
    """Image name without its extension, as a valid part of a file name."""
    bare = Path(image).stem if image.lower().endswith(IMAGE_ENDINGS) else image
    return re.sub(r"[^A-Za-z0-9._-]", "_", bare)[:80]


def _for_sheet(row: Row, image: str) -> Row:
    pixels = shrink_to(row.pixels, SHEET_SIDE)
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
    height, width = pixels.shape
    for name, listed in boxes.items():
        if any(x1 > width or y1 > height for _, _, x1, y1 in listed):
            raise UserError(
                f"a box of '{name}' leaves the image {image} of {width} x {height} pixels: give "
                "the images at the size of the boxes"
            )


def _scaled(boxes: Sequence[Box], pixels: NDArray[np.uint8], small: NDArray[np.uint8]) -> list[Box]:
    """Scale boxes to a smaller copy of the image."""
    y, x = (of / by for of, by in zip(small.shape, pixels.shape, strict=True))
    return [(x0 * x, y0 * y, x1 * x, y1 * y) for x0, y0, x1, y1 in boxes]
