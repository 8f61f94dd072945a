"""Frontal and lateral views by the names that datasets give them."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from core.data.csv.columns import Column
from core.errors import UserError, plain

FRONTAL = {"ap", "pa", "frontal", "antero", "postero", "anteroposterior", "posteroanterior"}
LATERAL = {"lateral", "lat", "ll", "rl", "laterolateral", "leftlateral", "rightlateral"}


def view_group(view: str) -> str:
    """frontal for AP, PA and their kin, lateral for LL, L and theirs; else the name itself, plain.

    The names are those of NIH, CheXpert, MIMIC-CXR and PadChest ("AP AXIAL", LATERAL, L, ...).
    Whole words count, as "apical" is none of AP.
    """
    name = plain(view)
    words = {name, *re.split(r"[\W\d_]+", view.casefold())}
    # an L beside other words may be a side
    if words & LATERAL or name == "l":
        return "lateral"
    return "frontal" if words & FRONTAL else name


def of_views(path: Path, views: Column | None, wanted: str) -> np.ndarray:
    """Whether each image's view is of the group `wanted`, frontal or lateral: (N,) bool.

    Raises UserError where the table at `path` has no column of views, or no image of that group.
    """
    if views is None:
        raise UserError(
            f"--views {wanted} needs a column of views (--view_column), or DICOM files whose "
            f"headers tell them, and {path} has neither: name the column, or leave --views out."
        )
    is_wanted = views.each(lambda view: view_group(view) == wanted)
    if not is_wanted.any():
        counts = pd.Series(views.cells).value_counts()
        there = ", ".join(f"{view or '(blank)'} {n:,}" for view, n in counts.head(12).items())
        raise UserError(
            f"--views {wanted} leaves none of the {len(views.codes):,} images of {path}: their "
            f"views are {there}."
        )
    return is_wanted
