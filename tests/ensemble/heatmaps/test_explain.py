"""`python -m ensemble.explain`: pictures, tables, and the pointing game against a truth."""

import math
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ensemble.explain import main
from ensemble.heatmaps.pointing_game import Pointing, highest_place
from methods import load_model
from tests.conftest import Call
from tests.helpers.calls import output_of, refusal
from tests.helpers.infer_files import reference_probabilities, select_classes
from tests.helpers.served_page import calibrated

BOXES = "ImageID,finding,x0,y0,x1,y1\n"


@pytest.fixture
def explain(call: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path) -> Call:
    """The command with two checkpoints, on the phantom's images."""

    def answer(*arguments: object) -> tuple[int, str, str]:
        given = ("--checkpoints", *checkpoints, "--image_dir", phantom / "images")
        return call(main, *given, "--output", tmp_path / "maps", *arguments)

    return answer


def peak(row: int, column: int) -> np.ndarray:
    heat = np.zeros((20, 30), dtype=np.float32)
    heat[row, column] = 1
    return heat


def test_hits_are_counted_by_class_and_model_against_chance() -> None:
    pointing = Pointing(["one", "other"])
    flat = np.full((20, 30), 0.5, dtype=np.float32)
    box = (10.0, 5.0, 16.0, 10.0)  # columns 10 to 15, rows 5 to 9
    pointing.count("Mass", [box], [peak(5, 10), peak(10, 10)])
    pointing.count("Mass", [box], [peak(9, 15), peak(9, 16)])
    pointing.count("Mass", [box, (0, 0, 1, 1)], [peak(0, 0), np.full_like(flat, np.nan)])
    pointing.count("Hernia", [(0, 0, 15, 20)], [flat, peak(0, 14)])
    table = pointing.table(["Hernia", "Mass", "Nodule"])
    assert list(table["class"].unique()) == ["Hernia", "Mass", "all classes"]
    rows: dict[Any, Any] = table.set_index(["class", "model"]).to_dict("index")
    expected = {
        ("Hernia", "one"): (1, 0, 0.5),
        ("Hernia", "other"): (1, 1, 0.5),
        ("Mass", "one"): (3, 3, (30 + 30 + 31) / 3 / 600),
        ("Mass", "other"): (2, 0, 30 / 600),
        ("all classes", "one"): (4, 3, (300 + 30 + 30 + 31) / 4 / 600),
        ("all classes", "other"): (3, 1, (300 + 30 + 30) / 3 / 600),
    }
    for key, (images, hits, chance) in expected.items():
        row = rows[key]
        assert (row["images"], row["hits"]) == (images, hits)
        found = [row[name] for name in ("hit_rate", "chance")]
        np.testing.assert_allclose(found, [hits / images, chance], atol=1e-9)
    # Wilson (1927) of 1 of 3, with the 97.5 % point of the normal distribution
    z = 1.959963984540054
    middle, half = 1 / 3 + z * z / 6, z * math.sqrt(2 / 27 + z * z / 36)
    bounds = [rows["all classes", "other"][name] for name in ("low", "high")]
    expected_bounds = [(middle - half) / (1 + z * z / 3), (middle + half) / (1 + z * z / 3)]
    np.testing.assert_allclose(bounds, expected_bounds, atol=1e-9)


def test_the_highest_place_of_a_plateau_is_the_middle_of_its_cell() -> None:
    cells = np.zeros((4, 4), dtype=np.float32)
    cells[0, 3] = 1
    heat = cv2.resize(cells, (40, 40), interpolation=cv2.INTER_LINEAR)
    place = highest_place(heat.astype(np.float32))
    assert place is not None
    np.testing.assert_allclose(place, (4.5, 34.5), atol=0.5)


def test_pictures_and_tables_of_some_images(
    explain: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    boxes = pd.read_csv(phantom / "boxes.csv")
    test = pd.read_csv(phantom / "test.csv")["ImageID"]
    shown = boxes[boxes["ImageID"].isin(test)]
    printed = output_of(
        explain,
        *("--test_csv", phantom / "test.csv", "--boxes", phantom / "boxes.csv"),
        *("--draw", 2, "--top", 1, "--weights", 1, 3),
    )
    folder = tmp_path / "maps"
    listed = pd.read_csv(folder / "maps.csv")
    assert len(listed) == 2 * 3
    names = list(load_model(checkpoints[0])[1].class_names)
    first = [phantom / "images" / name for name in test[:2]]
    one, other = (reference_probabilities(path, first) for path in checkpoints)
    merged = (one + 3 * other) / 4
    expected = [
        each[image, merged[image].argmax()] for image in range(2) for each in (one, other, merged)
    ]
    assert [names[row.argmax()] for row in merged] == list(listed["class"][::3])
    np.testing.assert_allclose(listed["probability"], expected, atol=2e-6)
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert pictures == sorted([*listed["file"].unique(), "sheet.png"])
    for name in pictures:
        pixels = np.asarray(Image.open(folder / name).convert("RGB")).astype(int)
        assert (pixels.max(2) - pixels.min(2)).max() > 60  # colour over grey
    table = pd.read_csv(folder / "pointing.csv")
    whole = table[table["class"] == "all classes"]
    assert list(whole["model"]) == ["standard_head fold 1", "standard_head fold 2", "ensemble"]
    assert set(whole["images"]) == {len(shown)}
    area = (shown["x1"] - shown["x0"]) * (shown["y1"] - shown["y0"]) / 40**2
    np.testing.assert_allclose(whole["chance"], area.mean())
    counts = shown["finding"].value_counts()
    of_classes = table[table["class"] != "all classes"]
    assert of_classes["images"].tolist() == [counts[name] for name in of_classes["class"]]
    assert "the first 2 of" in printed
    assert set(listed["calibration"]) == {"uncalibrated"}
    assert re.search(r"^probability +uncalibrated", printed, re.M)
    assert re.search(r"^weight 0\.25  \S+_fold1\.safetensors", printed, re.M)
    assert f"{len(shown):>6,}" in printed


@pytest.mark.parametrize("number", [1, 2])
def test_probabilities_are_those_of_infer(
    explain: Call, infer: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path, number: int
) -> None:
    names = load_model(checkpoints[0]).class_names
    calibration = calibrated(tmp_path / "c.json", names)
    image = phantom / "images" / "p00000_00.png"
    ours = ("--checkpoints", *checkpoints[:number], "--calibration", calibration)
    shown = output_of(explain, *ours, "--images", image.name, "--classes", *names)
    output_of(infer, image, *ours, "--output", tmp_path / "p.csv")
    truth = pd.read_csv(tmp_path / "p.csv", index_col=0).iloc[0]
    listed = pd.read_csv(tmp_path / "maps" / "maps.csv")
    last = listed[listed["calibration"] == "calibrated"].set_index("class")["probability"]
    assert len(listed) == len(names) * (1 if number == 1 else 3)
    np.testing.assert_allclose(last[names], truth[names], atol=1e-6)
    assert np.abs(reference_probabilities(checkpoints[0], [image])[0] - truth).max() > 1e-3
    assert f"calibrated by {calibration}" in shown
    assert ("of each model uncalibrated" in shown) == (number > 1)


def test_names_are_kept_out_where_asked_and_only_what_it_made_is_replaced(
    explain: Call, tmp_path: Path
) -> None:
    maps, image = tmp_path / "maps", ("--images", "p00000_00", "--classes", "Mass")
    printed = output_of(explain, *image, "--anonymous")
    before = sorted(maps.iterdir())
    text = printed + (maps / "maps.csv").read_text() + str([path.name for path in before])
    assert "p00000" not in text
    assert re.search(r"0001_[0-9a-f]{8}-000001\.png", text)
    assert explain(*image)[0] == 2
    assert explain(*image, "--anonymous", "--overwrite")[0] == 0
    assert sorted(maps.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--classes Mas", "unknown class 'Mas': did you mean 'Mass'?"),
        ("--images p9.png", "1 of 1 images has no file in"),
        ("--boxes {tmp}/wide.csv", "a box of 'Mass' leaves the image p00000_00.png of 40 x 40"),
        ("--boxes {tmp}/none.csv", "row 2 (the header is row 1) is not a valid box"),
        ("--output {tmp}/own --overwrite", "has other files (notes.txt)"),
        ("--output {tmp}/own", "is there already: name another --output"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    explain: Call, tmp_path: Path, arguments: str, sentence: str
) -> None:
    (tmp_path / "wide.csv").write_text(f"{BOXES}p00000_00.png,Mass,1,2,41,8\n")
    (tmp_path / "none.csv").write_text(f"{BOXES}p00000_00.png,Mass,5,2,5,8\n")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert sentence in refusal(
        explain, "--images", "p00000_00.png", *arguments.format(tmp=tmp_path).split()
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_a_box_may_reach_the_edge_of_a_large_image(explain: Call, tmp_path: Path) -> None:
    # 1573 * (1009 / 1573) is a hair above 1009
    Image.new("L", (1573, 1596), 9).save(tmp_path / "large.png")
    boxes = tmp_path / "boxes.csv"
    words = ("--image_dir", tmp_path, "--classes", "Mass", "--boxes", boxes)
    for right, bottom in ((1573.5, 1596), (1573, 1597)):
        boxes.write_text(f"{BOXES}large.png,Mass,0,798,{right},{bottom}\n")
        assert "leaves the image large.png of 1573 x 1596" in refusal(explain, *words)
    boxes.write_text(f"{BOXES}large.png,Mass,0,798,1573,1596\n")
    output_of(explain, *words)
    table = pd.read_csv(tmp_path / "maps" / "pointing.csv")
    np.testing.assert_allclose(table["chance"], 0.5, atol=1e-3)


def test_boxes_are_found_by_name_where_names_are_kept_out(
    explain: Call, phantom: Path, tmp_path: Path
) -> None:
    images, boxes = tmp_path / "images", tmp_path / "boxes.csv"
    for folder in ("sub", "other"):
        (images / folder).mkdir(parents=True)
        shutil.copy(phantom / "images" / "p00000_00.png", images / folder / "p.png")
    rows = "sub/p.png,Mass,0,0,20,40\n"
    boxes.write_text(f"Image Index,label,x0,y0,x1,y1\n{rows}")
    flags = ("--image_dir", images, "--classes", "Mass", "--anonymous", "--boxes", boxes)
    output_of(explain, *flags)
    table = pd.read_csv(tmp_path / "maps" / "pointing.csv")
    assert set(table["images"]) == {1}
    np.testing.assert_allclose(table["chance"], 0.5)
    boxes.write_text(f"{BOXES}SECRET.png,Mass,0,0,20,40\n")
    error = refusal(explain, *flags, "--output", tmp_path / "other")
    assert "which has 1 image of other names" in error
    assert "SECRET" not in error


def test_a_model_without_the_class_does_not_count_as_a_miss(
    explain: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    names = load_model(checkpoints[0])[1].class_names
    fewer = [name for name in names if name != "Effusion"]
    output_of(
        explain,
        *(
            "--checkpoints",
            checkpoints[0],
            select_classes(checkpoints[0], tmp_path / "f.safetensors", fewer),
        ),
        *("--test_csv", phantom / "test.csv", "--draw", 1, "--classes", "Effusion"),
        *("--boxes", phantom / "boxes.csv"),
    )
    table = pd.read_csv(tmp_path / "maps" / "pointing.csv")
    effusion = table[table["class"] == "Effusion"].drop(columns="class")
    rows: dict[Any, Any] = effusion.set_index("model").to_dict("index")
    assert rows["standard_head fold 1 (2)"]["images"] == 0
    assert rows["standard_head fold 1 (1)"]["images"] > 0
    assert rows["ensemble"] == rows["standard_head fold 1 (1)"]
