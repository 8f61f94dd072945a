"""Heat maps: where in an image the models see what speaks for a class.

    python -m ensemble.explain --checkpoints a.safetensors b.safetensors --image_dir images
      --images one.png two.png --classes Effusion --output maps

Writes a picture of each image (a row a class, a column a model and the ensemble), sheet.png with
all of them, and maps.csv. CSRA has maps of its own; of other heads it is Grad-CAM. With --boxes,
the pointing game: how often a map's highest place lies in the lesion, against chance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core.config.command_line import flags, run
from core.errors import UserError, counted, nearest
from ensemble.heatmaps.config import Config

if TYPE_CHECKING:  # imported where they are used, so that --help is answered at once
    from core.data.tables.label_table import LabelTable
    from ensemble.heatmaps.explain import Explained
    from ensemble.predict.members import Member

# what a call writes, and nothing else is replaced
_OURS = re.compile(r"maps\.csv|pointing\.csv|sheet\.png|\d{4,}_[\w.-]*\.png")


def main() -> None:
    """The command line."""
    config = flags(Config(), __doc__)
    config.check()
    # late, so that --help and a mistyped flag are answered at once
    from core.data.images.size_limit import max_pixels
    from core.data.tables.anonymous import without_names
    from core.io.output_folder import check_folder, write_folder
    from core.runtime.fabric import make_fabric
    from ensemble.heatmaps.explain import Explainer, check_explainable, explain_images
    from ensemble.heatmaps.pointing_game import boxed_classes, boxes_of, read_boxes
    from ensemble.predict.members import (
        describe,
        known_classes,
        load_members,
        merged_classes,
        named_checkpoints,
    )

    max_pixels()
    checkpoints, shares, names = named_checkpoints(
        config.checkpoints, config.weights, config.ensemble
    )
    read = [*checkpoints, config.test_csv, config.boxes, config.ensemble]
    inputs = [path for path in read if path is not None]
    check = partial(
        check_folder, config.output, inputs, _OURS, "maps.csv", overwrite=config.overwrite
    )
    check()
    boxes = None if config.boxes is None else read_boxes(config.boxes)
    images = _find(config)
    members = load_members(checkpoints)
    names = known_classes(members, names) if names else merged_classes(members, "union")
    for name in config.classes:
        if name not in names:
            raise UserError(f"there is no class '{name}'{nearest(name, names)}")
    measured: Sequence[str] = ()
    if boxes is not None:
        assert config.boxes is not None
        measured = boxed_classes(boxes, config.classes or names, config.boxes)
    # by the images' own names
    lesions = boxes_of(images, boxes or {}, measured, anonymous=config.anonymous)
    if config.anonymous:
        images = without_names(images)
    check_explainable(members)
    print(describe(members, shares, names))
    fabric = make_fabric(amp=False)
    if fabric.world_size > 1:
        raise UserError("heat maps are made by one process: start this by python alone")
    explainer = Explainer(fabric, members, shares, names)
    found: list[Explained] = []

    def fill(folder: Path) -> None:
        found.append(explain_images(explainer, images, config, folder, lesions, measured))

    write_folder(config.output, fill, check)
    _close(config, images, members, found[0])


def _find(config: Config) -> LabelTable:
    """The images to explain."""
    import numpy as np

    from core.data.images.find_files import match_images
    from core.data.tables.images_to_predict import find_images

    images = find_images(config.image_dir, config.test_csv, image_column=config.image_column)
    if names := list(config.images):
        named = match_images(names, config.image_dir)
        images = replace(images, ids=names, images=named, targets=np.empty((len(names), 0)))
    return images


def _close(config: Config, images: LabelTable, members: Sequence[Member], found: Explained) -> None:
    """Where everything is, and what it says."""
    from ensemble.heatmaps.explain import SHEET_ROWS
    from ensemble.heatmaps.pointing_game import told

    if found.pointing is not None:
        print(f"\n{told(found.pointing)}\n")
    drawn = counted(found.drawn, "image")
    if found.drawn < len(images):
        drawn = f"the first {found.drawn:,} of {counted(len(images), 'image')}; --draw for more"
    by = counted(len(members), "model")
    print(f"maps         {config.output} ({drawn}, by {by})")
    cut = f" (the first {SHEET_ROWS} of {found.rows:,} maps)" if found.rows > SHEET_ROWS else ""
    print(f"sheet        {config.output / 'sheet.png'}{cut}")
    if found.pointing is not None:
        print(f"pointing     {config.output / 'pointing.csv'}")


if __name__ == "__main__":
    run(main)
