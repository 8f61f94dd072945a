"""Heat maps of the evidence for a class in an image.

    python -m ensemble.explain --checkpoints a.safetensors b.safetensors --image_dir images
      --images one.png two.png --classes Effusion

Writes a picture of each image (a row a class, a column a model and the ensemble), sheet.png with
all of them, and maps.csv with the probabilities of ensemble.infer. Maps are CSRA's attention, and
Grad-CAM for other heads. --boxes adds the pointing game: how often the maximum of a map is inside
the lesion, against chance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from core.config.command_line import flags, run
from core.errors import UserError, pluralize
from core.runtime.log import logger
from ensemble.heatmaps.config import Config

if TYPE_CHECKING:  # imported late for a fast --help
    from pathlib import Path

    from core.data.tables.label_table import LabelTable
    from ensemble.heatmaps.pointing_game import Box

# files of this command; --overwrite replaces no others
_OURS = re.compile(r"maps\.csv|pointing\.csv|sheet\.png|\d{4,}_[\w.-]*\.png")


def main() -> None:
    """Run the command line."""
    config = flags(Config(), __doc__)
    config.check()
    # imported late for a fast --help
    from core.data.images.size_limit import max_pixels
    from core.data.tables.anonymous import anonymize
    from core.io.output_folder import check_folder, write_folder
    from core.runtime.fabric import make_fabric
    from core.runtime.precision import advise_amp
    from ensemble.heatmaps.explain import SHEET_ROWS, explain_images
    from ensemble.heatmaps.pointing_game import boxed_classes, boxes_of, hits_table, read_boxes
    from ensemble.predict.calibration import make_postprocess
    from ensemble.predict.config import MergeConfig
    from ensemble.predict.ensemble import Ensemble
    from ensemble.predict.predictor import Predictor

    max_pixels()
    boxes = {} if config.boxes is None else read_boxes(config.boxes)
    images = _find(config)
    ensemble = Ensemble.load(config.models, "union")
    calibration = config.postprocessing.calibration
    read = filter(None, (config.test_csv, config.boxes, config.models.ensemble, calibration))
    inputs, overwrite = [*ensemble.paths, *read], config.overwrite
    check = partial(check_folder, config.output, inputs, _OURS, "maps.csv", overwrite=overwrite)
    check()
    postprocess = make_postprocess(config.postprocessing, ensemble.class_names)
    for name in config.classes:
        ensemble.check_class(name)
    measured: list[str] = []
    lesions: dict[int, Mapping[str, list[Box]]] = {}
    if config.boxes is not None:
        measured = boxed_classes(boxes, config.classes or ensemble.class_names, config.boxes)
        lesions = boxes_of(images, boxes, measured, anonymous=config.anonymous)
    # after the boxes, which are matched by image name
    if config.anonymous:
        images = anonymize(images)
    fabric = make_fabric(amp=config.amp)
    if fabric.world_size > 1:
        raise UserError("heat maps run in one process only: start the command by python")
    # the augmented copies that ensemble.infer and calibrate use by default
    predictor = Predictor(fabric, ensemble, MergeConfig(), postprocess)
    logger.info(ensemble)
    advise_amp(fabric, config.amp)
    rows, pointing = write_folder(
        config.output,
        lambda folder: explain_images(predictor, images, config, folder, lesions, measured),
        check,
    )
    if pointing is not None:
        logger.info(f"\n{hits_table(pointing).as_text()}\n")
    drawn = pluralize(len(images), "image")
    if config.draw < len(images):
        drawn = f"the first {config.draw:,} of {drawn}; --draw for more"
    logger.info(
        f"maps         {config.output} ({drawn}, by {pluralize(len(ensemble.members), 'model')})"
    )
    logger.info(f"probability  {describe_calibration(calibration, len(ensemble.members))}")
    cut = f" (the first {SHEET_ROWS} of {rows:,} maps)" if rows > SHEET_ROWS else ""
    logger.info(f"sheet        {config.output / 'sheet.png'}{cut}")
    if pointing is not None:
        logger.info(f"pointing     {config.output / 'pointing.csv'}")


def describe_calibration(calibration: Path | None, models: int) -> str:
    """Describe which probabilities are calibrated."""
    if calibration is None:
        return "uncalibrated: add --calibration FILE for calibrated ones"
    single = "; of each model uncalibrated" if models > 1 else ""
    return f"calibrated by {calibration}, as in ensemble.infer{single}"


def _find(config: Config) -> LabelTable:
    import numpy as np

    from core.data.images.find_files import match_images
    from core.data.tables.images_to_predict import find_images

    images = find_images(config.image_dir, config.test_csv, image_column=config.image_column)
    if names := list(config.images):
        remedy = "Name other --images, or give their folder by --image_dir."
        named = match_images(names, config.image_dir, remedy)
        images = replace(images, ids=names, images=named, targets=np.empty((len(names), 0)))
    return images


if __name__ == "__main__":
    run(main)
