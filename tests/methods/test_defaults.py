"""docs/defaults.md holds each default that differs between methods or presets, and no other."""

import re

from tests.helpers.training.small_run import METHODS, ROOT, settings

COLUMNS = [(method, preset) for method in METHODS for preset in ("paper", "small")]


def test_the_page_is_the_presets() -> None:
    presets = [settings("--preset", preset, method=method) for method, preset in COLUMNS]
    expected = {}
    for name in dict.fromkeys(name for values in presets for name in values):
        values = [str(one[name]) for one in presets if name in one]
        if len(set(values)) > 1 and name not in ("preset", "out_dir"):
            expected[name] = [str(one.get(name, "")) for one in presets]
    page = (ROOT / "docs/defaults.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\|.*\|$", page, re.MULTILINE)
    ]
    assert rows[0] == ["flag", *(f"`{method}` {preset}" for method, preset in COLUMNS)]
    assert {name.strip("`-"): cells for name, *cells in rows[2:]} == expected


def test_small_presets_share_what_makes_their_predictions_comparable() -> None:
    """One seed and number of folds, so that predictions can be merged, and one choice of epoch."""
    small = [settings("--preset", "small", method=method) for method in METHODS]
    for name in ("seed", "folds", "monitor", "img_size", "model"):
        assert len({one[name] for one in small}) == 1, name


def test_bce_of_label_coupling_alone_weights_positives_by_itself() -> None:
    weighted = {m: settings("--loss", "bce", method=m)["pos_weight"] for m in METHODS}
    assert weighted == {m: m == "label_coupling" for m in METHODS}
