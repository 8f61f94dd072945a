"""Readers of corrupted packs in the child."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.images.collection import Images
from core.data.images.pack_format import (
    FACTS,
    IMAGES,
    INDEX,
    Plan,
    open_packs,
    write_facts,
    write_index,
)

OUT = Path(os.environ["FUZZ_OUT"])
SIZE, COUNT, ROWS = 4, 7, 3


def make() -> None:
    """A sound pack, its image 5 unreadable."""
    folder = OUT / "sound"
    folder.mkdir()
    names = [f"sub/{number}.png" for number in range(COUNT - 1)] + ["Ödem, links\n.png"]
    images = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE), dtype=np.uint8)
    reasons = ["" if number != 5 else "it is no image" for number in range(COUNT)]
    np.save(folder / IMAGES, images)
    numbers = {"bytes": range(COUNT), "modified": range(COUNT)}
    write_index(folder / INDEX, pd.DataFrame({"name": names, **numbers, "unreadable": reasons}))
    plan = Plan(size=SIZE, count=COUNT, block_rows=ROWS, total=COUNT, names_sha256="0" * 64)
    blocks = [
        hashlib.sha256(images[plan.rows(block)].tobytes()).hexdigest()
        for block in range(plan.blocks)
    ]
    digest = hashlib.sha256((folder / INDEX).read_bytes()).hexdigest()
    write_facts(folder / FACTS, plan, index_sha256=digest, blocks=blocks)


def use(folder: str) -> None:
    """Read all names and images, as a training does."""
    packs = open_packs(folder)
    names = [name for pack in packs for name in pack.index["name"]]
    assert len(set(names)) == len(names) == sum(pack.plan.count for pack in packs)
    for name in names:
        inside = os.path.normpath(os.path.join(folder, name))
        assert inside.startswith(os.path.join(folder, "")), name
    images = Images.in_folder(folder, names, packs)
    bad = {place for place, _ in images.unreadable()}
    for place in range(len(names)):
        if place not in bad:
            pixels = images.read(place)
            assert (pixels.dtype, pixels.shape) == (np.uint8, (packs[0].plan.size,) * 2)
