"""Predictions of the images of a pack are those of the files."""

from pathlib import Path

import pandas as pd

from core.data.pack.__main__ import main as pack_main
from tests.conftest import Call


def test_a_pack_is_predicted_as_its_files(
    checkpoints: list[Path], phantom: Path, infer: Call, call: Call, tmp_path: Path
) -> None:
    folder, csv = phantom / "images", tmp_path / "two.csv"
    assert call(pack_main, "--train_dir", folder, "--size", 32, "--out", tmp_path / "pack")[0] == 0
    names = sorted(path.name for path in folder.iterdir())
    csv.write_text("\n".join(["ImageID", names[5], names[3]]))
    for number, more in enumerate(((), ("--test_csv", csv))):
        files, packed = tmp_path / f"files{number}.csv", tmp_path / f"packed{number}.csv"
        common = ("--checkpoints", *checkpoints, *more)
        assert infer(*common, "--image_dir", folder, "--output", files)[0] == 0
        code, out, err = infer(*common, "--image_dir", tmp_path / "pack", "--output", packed)
        assert code == 0, err
        assert packed.read_bytes() == files.read_bytes()
        assert "resized" not in out
    assert pd.read_csv(packed)["ImageID"].tolist() == [names[5], names[3]]


def test_the_size_of_a_pack_is_looked_at_first(
    checkpoints: list[Path], phantom: Path, infer: Call, call: Call, tmp_path: Path
) -> None:
    for size in (24, 40):
        flags = ("--train_dir", phantom / "images", "--size", size, "--out", tmp_path / f"{size}")
        assert call(pack_main, *flags)[0] == 0
    common = ("--checkpoints", *checkpoints, "--output", tmp_path / "out.csv", "--no-use_tta")
    code, _, err = infer(*common, "--image_dir", tmp_path / "24")
    assert code == 2
    assert "holds images of 24 px and 32 px are wanted" in err
    assert not list(tmp_path.glob("*out.csv*"))
    into = ("--output", tmp_path / "40" / "index.csv", "--overwrite")
    code, _, err = infer(*common, "--image_dir", tmp_path / "40", *into)
    assert code == 2
    assert "index.csv lies in a pack of images: give another --output" in err
    code, out, _ = infer(*common, "--image_dir", tmp_path / "40")
    assert code == 0
    assert out.count("40 px, resized to 32 px") == 1


def test_marked_images_are_left_out_or_told(
    checkpoints: list[Path], six_images: list[Path], infer: Call, call: Call, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in six_images:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "bad.png").write_bytes(b"<html>")
    flags = ("--train_dir", folder, "--size", 32, "--out", tmp_path / "pack")
    assert call(pack_main, *flags, "--on_bad_image", "skip")[0] == 0
    common = ("--checkpoints", *checkpoints, "--image_dir", tmp_path / "pack", "--no-use_tta")
    common += ("--output", tmp_path / "out.csv")
    code, _, err = infer(*common)
    assert code == 2
    assert "bad.png" in err
    assert "mend them, give the command that made the pack again and then this one," in err
    assert infer(*common, "--on_bad_image", "skip")[0] == 0
    assert len(pd.read_csv(tmp_path / "out.csv")) == 6
