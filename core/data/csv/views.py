"""View groups: frontal and lateral, from the view names of public datasets."""

import re

from core.errors import normalize_name

FRONTAL = {"ap", "pa", "frontal", "antero", "postero", "anteroposterior", "posteroanterior"}
LATERAL = {"lateral", "lat", "ll", "rl", "laterolateral", "leftlateral", "rightlateral"}


def view_group(view: str) -> str:
    """ "frontal" for AP, PA and similar, "lateral" for LL, L and similar, else the normalized name.

    The names are those of NIH, CheXpert, MIMIC-CXR and PadChest ("AP AXIAL", LATERAL, L, ...).
    Only whole words match: "apical" is not AP.
    """
    name = normalize_name(view)
    words = {name, *re.split(r"[\W\d_]+", view.casefold())}
    # next to other words, L may be a side
    if words & LATERAL or name == "l":
        return "lateral"
    return "frontal" if words & FRONTAL else name
