"""Three readers become one label, and readers that cannot be counted are refused."""

from pathlib import Path

import pytest

from core.data.tables import read_table
from core.errors import UserError

HERE = Path(__file__).parent / "vindr"
TRAIN = HERE / "image_labels_train.csv"
IMAGES = [
    *("000434271f63a053c4128a0ba6352c7f", "00053190460d56c53cc3e57321387478"),
    "0005e8e3701dfb1dd93d53e2ff537b6e",
]
LABELS = (
    *("Aortic enlargement", "Atelectasis", "Cardiomegaly", "ILD", "Nodule/Mass"),
    *("Other diseases", "No finding"),
)


@pytest.mark.parametrize(
    ("readers", "expected"),
    [
        ("majority", [[0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0, 0]]),
        ("any", [[0, 0, 0, 0, 1, 0, 1], [1, 0, 1, 1, 0, 0, 0], [0, 1, 0, 1, 0, 1, 0]]),
    ],
)
def test_readers(readers: str, expected: list[list[int]]) -> None:
    table = read_table(TRAIN, None, readers=readers)
    assert table.ids == IMAGES
    assert table.class_names == LABELS
    assert table.targets.tolist() == expected
    assert table.patients is None
    assert any("3 reader(s)" in note for note in table.notes)
    assert any("has no known patient column" in note for note in table.notes)
    assert not any("not used" in note for note in table.notes)


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    header, *rows = TRAIN.read_text().splitlines()
    path = tmp_path / "t.csv"
    path.write_text("\n".join([header, *rows[::-1]]) + "\n")
    table = read_table(path, None)
    assert table.ids == IMAGES[::-1]
    expected = [[0, 1, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]]
    assert table.targets.tolist() == expected


def test_half_of_the_readers_are_no_majority(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("image_id,rad_id,Mass\na,R1,1\na,R2,0\nb,R1,1\nb,R2,1\n")
    assert read_table(path, None).targets.tolist() == [[0], [1]]
    assert read_table(path, None, readers="any").targets.tolist() == [[1], [1]]


def test_the_consensus_of_the_test_table_is_taken_as_it_is() -> None:
    table = read_table(HERE / "image_labels_test.csv", None)
    assert table.class_names == LABELS
    assert table.targets.tolist()[:3] == [
        [0, 0, 0, 0, 0, 0, 1],
        [1, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 1, 0],
    ]
    assert not any("reader" in note for note in table.notes)
    assert len(table) == 6


def test_readers_that_disagree_on_the_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = TRAIN.read_text().splitlines()
    path.write_text("\n".join(rows[:-1]) + "\n")
    with pytest.raises(UserError, match=rf"1 image\(s\) have not 3 .*{IMAGES[2]}', row 8, has 2"):
        read_table(path, None)
    path.write_text("\n".join([*rows[:-1], rows[-1].replace("R10", "R9")]) + "\n")
    with pytest.raises(UserError, match=rf"row 10 .* reader 'R9' a second time.*{IMAGES[2]}"):
        read_table(path, None)


def test_a_readers_answer_is_1_or_0(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("image_id,rad_id,Mass\na,R1,1\nb,R1,maybe\n")
    with pytest.raises(UserError, match=r"row 3 .* column 'Mass' holds 'maybe'"):
        read_table(path, None)


@pytest.mark.parametrize(
    "rows",
    [
        "image_id,class_name,class_id,rad_id,x_min,y_min\na,No finding,14,R11,,\na,Mass,8,R9,1,2\n",
        "image_id,class_name,x_min,y_min,x_max,y_max\na,Mass,1,2,3,4\nb,Nodule/Mass,1,2,3,4\n",
        "image_id,rad_id,class_name,x_min\na,R1,Mass,1\na,R2,Mass,1\n",
    ],
)
def test_a_table_of_boxes_is_named(tmp_path: Path, rows: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(rows)
    with pytest.raises(UserError, match=r"is a table of boxes .*image_labels_train\.csv"):
        read_table(path, None, source="vindr")


@pytest.mark.parametrize(("yes", "no"), [("True", "False"), ("1.00", "0.00"), ("yes", "no")])
def test_readers_answers_in_another_notation(tmp_path: Path, yes: str, no: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"image_id,rad_id,Mass\na,R1,{yes}\na,R2,{no}\nb,R1,{yes}\nb,R2,{yes}\n")
    assert read_table(path, None).targets.tolist() == [[0], [1]]
    assert read_table(path, None, readers="any").targets.tolist() == [[1], [1]]


def test_a_reader_without_a_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("image_id,rad_id,Mass\na,R1,1\na,,1\n")
    with pytest.raises(UserError, match=r"row 3 .* names no reader in column 'rad_id'"):
        read_table(path, None)


def test_a_table_of_boxes_is_not_one_of_readers(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_text(
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
        "a,No finding,14,R11,,,,\na,Mass,8,R9,1,2,3,4\n"
    )
    with pytest.raises(UserError) as told:
        read_table(path, None)
    assert "VinDr" not in str(told.value)
    assert "reader" not in str(told.value)
