"""Frontal and lateral views by the names that datasets give them."""

import re

from core.errors import normalize_name

FRONTAL = {"ap", "pa", "frontal", "antero", "postero", "anteroposterior", "posteroanterior"}
LATERAL = {"lateral", "lat", "ll", "rl", "laterolateral", "leftlateral", "rightlateral"}


def view_group(view: str) -> str:
    """frontal for AP, PA and their kin, lateral for LL, L and theirs; else the name itself, plain.

    The names are those of NIH, CheXpert, MIMIC-CXR and PadChest ("AP AXIAL", LATERAL, L, ...).
    Whole words count, as "apical" is none of AP.
    """
    name = normalize_name(view)
    words = {name, *re.split(r"[\W\d_]+", view.casefold())}
    # an L beside other words may be a side
    if words & LATERAL or name == "l":
        return "lateral"
    return "frontal" if words & FRONTAL else name
