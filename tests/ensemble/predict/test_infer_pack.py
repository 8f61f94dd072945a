"""Predictions of the images of a pack are those of the files."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from core.data.pack.__main__ import main as pack_main
from tests.conftest import Call
from tests.helpers.calls import output_of, refusal
from tests.helpers.infer_files import Infer, copy_images

Pack = Callable[..., Path]


@pytest.fixture
def pack(call: Call, tmp_path: Path) -> Pack:
    """Packs the images of a folder at a size, and returns the pack."""

    def make(folder: Path, size: int, *more: object) -> Path:
        out = tmp_path / f"pack{size}"
        flags = ("--train_dir", folder, "--size", size, "--out", out, *more)
        assert call(pack_main, *flags)[0] == 0
        return out

    return make


def test_a_pack_is_predicted_as_its_files(
    checkpoints: list[Path], phantom: Path, infer: Infer, pack: Pack, tmp_path: Path
) -> None:
    folder, csv = phantom / "images", tmp_path / "two.csv"
    packed = pack(folder, 32)
    names = sorted(path.name for path in folder.iterdir())
    csv.write_text("\n".join(["ImageID", names[5], names[3]]))
    for number, more in enumerate(((), ("--test_csv", csv))):
        outputs = tmp_path / f"files{number}.csv", tmp_path / f"packed{number}.csv"
        for images, output in zip((folder, packed), outputs, strict=True):
            flags = ("--checkpoints", *checkpoints, *more, "--image_dir", images)
            printed = output_of(infer, *flags, "--output", output)
            assert "resized" not in printed
        assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert pd.read_csv(outputs[1])["ImageID"].tolist() == [names[5], names[3]]


def test_the_size_of_a_pack_is_looked_at_first(
    checkpoints: list[Path], phantom: Path, infer: Infer, pack: Pack, tmp_path: Path
) -> None:
    small, large = (pack(phantom / "images", size) for size in (24, 40))
    common = ("--checkpoints", *checkpoints, "--output", tmp_path / "out.csv", "--no-use_tta")
    into = ("--output", large / "index.csv", "--overwrite")
    for flags, expected in (
        ((small,), "holds images of 24 px and 32 px are needed"),
        ((small, "--group_by", "study"), "which a pack does not have; give the studies"),
        ((large, *into), "index.csv is inside a pack of images: give another --output"),
    ):
        assert expected in refusal(infer, *common, "--image_dir", *flags)
    assert not list(tmp_path.glob("*out.csv*"))
    printed = output_of(infer, *common, "--image_dir", large)
    assert printed.count("40 px, resized to 32 px") == 1


def test_unreadable_images_are_left_out_or_reported(
    checkpoints: list[Path], six_images: list[Path], infer: Infer, pack: Pack, tmp_path: Path
) -> None:
    folder = copy_images(six_images, tmp_path / "images")
    (folder / "bad.png").write_bytes(b"<html>")
    packed = pack(folder, 32, "--on_bad_image", "skip")
    common = ("--checkpoints", *checkpoints, "--image_dir", packed, "--no-use_tta")
    common += ("--output", tmp_path / "out.csv")
    error = refusal(infer, *common)
    assert "bad.png" in error
    assert "replace them, make the pack again, then rerun this command," in error
    assert infer(*common, "--on_bad_image", "skip")[0] == 0
    assert len(pd.read_csv(tmp_path / "out.csv")) == 6
