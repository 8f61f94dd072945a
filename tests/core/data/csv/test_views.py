"""The names that datasets give their views, in the groups that a radiologist would make."""

import pytest

from core.data.csv.views import view_group

FRONTAL = ["PA", "AP", "pa", "Frontal", "AP AXIAL", "AP LLD", "PA RLD", "AP_horizontal", "CHEST PA"]
FRONTAL += ["PA_decubitus", "A.P.", "view1_frontal", "antero posterior"]
FRONTAL += ["postero-anterior", "antero-posterior", "anteroposterior", "Portable AP"]
LATERAL = ["LATERAL", "Lateral", "LL", "RL", "L", "lat", "left lateral", "XTABLE LATERAL"]
OTHER = ["", "COSTAL", "EXCLUDE", "UNK", "LAO", "RAO", "SWIMMERS", "LPO"]
OTHER += ["apical", "partial", "palm", "paravertebral", "bilateral", "latent"]


@pytest.mark.parametrize("name", FRONTAL)
def test_frontal(name: str) -> None:
    assert view_group(name) == "frontal"


@pytest.mark.parametrize("name", LATERAL)
def test_lateral(name: str) -> None:
    assert view_group(name) == "lateral"


def test_others_stay_by_themselves() -> None:
    assert [view_group(name) for name in OTHER] == [name.lower() for name in OTHER]
