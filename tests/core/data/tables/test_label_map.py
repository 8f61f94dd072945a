"""Label maps: which labels of two sources become one."""

from pathlib import Path

import pytest

from core.data.tables.label_map import LabelMap, read_label_map
from core.errors import UserError, normalize_name


def mapped(tmp_path: Path, *rows: str, header: str = "label,means") -> LabelMap:
    path = tmp_path / "map.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return read_label_map(path)


@pytest.mark.parametrize(
    ("labels", "meaning"),
    [
        # NIH, CheXpert and MIMIC, CXR-LT, PadChest, VinDr-CXR, as each writes it
        (["Effusion", "Pleural Effusion", "pleural effusion"], "Pleural Effusion"),
        (["No Finding", "No_Finding", "No finding", "Normal", "normal"], "Normal"),
        (["Pleural_Thickening", "pleural thickening"], "Pleural Thickening"),
        (["Fibrosis", "pulmonary fibrosis", "Pulmonary fibrosis"], "Fibrosis"),
        (["Round(ed) Atelectasis", "round atelectasis"], "Rounded Atelectasis"),
    ],
)
def test_our_map_joins_the_names_of_one_finding(labels: list[str], meaning: str) -> None:
    ours = read_label_map(None)
    assert {ours.meaning(label) for label in labels} == {meaning}


def test_our_map_keeps_apart_what_is_not_the_same() -> None:
    ours = read_label_map(None)
    parts = (
        *("Hernia", "hiatal hernia", "Mass", "pulmonary mass", "Nodule", "Nodule/Mass"),
        *("Emphysema", "subcutaneous emphysema", "Fracture", "rib fracture", "Lung Opacity"),
        *("Lung Lesion", "Infiltration", "Consolidation", "Pneumonia", "Pleural Other"),
        *("loculated pleural effusion", "pericardial effusion", "calcified pleural thickening"),
        *("apical pleural thickening", "Atelectasis", "lobar atelectasis", "pneumothorax"),
        *("hydropneumothorax", "Enlarged Cardiomediastinum", "mediastinal enlargement"),
    )
    assert len({normalize_name(ours.meaning(label)) for label in parts}) == len(parts)


def test_the_users_rows_are_followed_to_the_end_and_over_ours(tmp_path: Path) -> None:
    label_map = mapped(tmp_path, "Derrame,Effusion", "Consolidation,Opacity", "opacity,Haze")
    # on through our row of Effusion
    assert label_map.resolve("derrame") == ["derrame", "Effusion", "Pleural Effusion"]
    assert label_map.meaning("CONSOLIDATION") == "Haze"
    assert label_map.meaning("No Finding") == "Normal"
    assert label_map.meaning("Mass") == "Mass"


def test_a_row_of_the_user_reverses_or_disables_ours(tmp_path: Path) -> None:
    turned = mapped(tmp_path, "Pleural Effusion,Effusion")
    assert {*map(turned.meaning, ("Effusion", "effusion", "pleural effusion"))} == {"Effusion"}
    kept = mapped(tmp_path, "Effusion,Effusion")
    assert kept.meaning("effusion") == "Effusion"
    assert kept.meaning("Pleural Effusion") == "Pleural Effusion"


def test_rows_of_labels_that_are_nowhere_are_found(tmp_path: Path) -> None:
    label_map = mapped(tmp_path, "A,B", "B,C", "Efusion,Pleural Effusion", "a_,b")
    # B is on the way of A
    assert label_map.unused(["a", "Mass"]) == ["Efusion"]
    assert label_map.unused(["Mass"]) == ["A", "B", "Efusion", "a_"]
    assert read_label_map(None).unused([]) == []


@pytest.mark.parametrize(
    ("rows", "header", "sentence"),
    [
        (["A,B", "B,C", "C,A"], "label,means", r"has a cycle: A means B means C means A"),
        (["A,B", "a_,C"], "label,means", r"gives 'a_' two meanings, 'B' and 'C': keep one"),
        (["A,B", ",C"], "label,means", r"row 3 \(.* has no label .*'label'"),
        (["A,--"], "label,means", r"row 2 .* has no label in column 'means'"),
        (["A,B"], "from,to", "needs the columns label,means; it has from, to"),
        ([], "label,means", "has a header and no rows"),
    ],
)
def test_a_map_that_cannot_be_followed_is_refused(
    tmp_path: Path, rows: list[str], header: str, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as refused:
        mapped(tmp_path, *rows, header=header)
    assert "map.csv" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_map_where_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--label_map .*none\.csv is not a file"):
        read_label_map(tmp_path / "none.csv")
