"""View names of datasets, mapped to radiological projections."""

from core.data.csv.views import view_group

FRONTAL = ["PA", "AP", "pa", "Frontal", "AP AXIAL", "AP LLD", "PA RLD", "AP_horizontal", "CHEST PA"]
FRONTAL += ["PA_decubitus", "A.P.", "view1_frontal", "antero posterior"]
FRONTAL += ["postero-anterior", "antero-posterior", "anteroposterior", "Portable AP"]
LATERAL = ["LATERAL", "Lateral", "LL", "RL", "L", "lat", "left lateral", "XTABLE LATERAL"]
OTHER = ["", "COSTAL", "EXCLUDE", "UNK", "LAO", "RAO", "SWIMMERS", "LPO"]
OTHER += ["apical", "partial", "palm", "paravertebral", "bilateral", "latent"]


def test_groups_of_views() -> None:
    assert {view_group(name) for name in FRONTAL} == {"frontal"}
    assert {view_group(name) for name in LATERAL} == {"lateral"}
    assert [view_group(name) for name in OTHER] == [name.lower() for name in OTHER]
