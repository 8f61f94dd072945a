"""`ensemble.infer` with bad input: one line, exit code 2, nothing written or lost."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from core.models.checkpoint import load_tensors, save_tensors
from ensemble.predict.blocks import blocks_folder
from ensemble.predict.ensemble_json import write_recipe
from tests.helpers.calls import output_of, refusal
from tests.helpers.infer_files import Infer, copy_images

Refused = Callable[..., str]


@pytest.fixture
def refused(infer: Infer, tmp_path: Path) -> Refused:
    """The sentence that refuses these arguments; nothing is written."""

    def answer(*arguments: object) -> str:
        output = tmp_path / "p.csv"
        code, _, error = infer(*arguments, "--output", output)
        assert (code, error[:7], error.count("\n")) == (2, "error: ", 1), arguments
        assert not output.exists()
        assert not blocks_folder(output).exists()
        return error

    return answer


@pytest.fixture
def first(checkpoints: list[Path], phantom: Path) -> list[object]:
    return ["--checkpoints", checkpoints[0], "--image_dir", phantom / "images"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--image_dir {tmp}/empty", "holds no image"),
        ("--image_dir {tmp}/none", "does not exist"),
        ("--test_csv {tmp}/none.csv", "There is no file"),
        ("--test_csv {tmp}/other.csv", "no column of image names"),
        ("--sample_submission none.csv", "none.csv"),
        ("--calibration none.json", "none.json"),
        ("--checkpoints {tmp}/none", "is not there"),
        ("--ensemble none.json", "--ensemble has the checkpoints and weights"),
        ("--weights 0", "not all 0"),
        ("--weights 1 2", "2 --weights for 1 checkpoint"),
        ("--weights inf", "--weights must be a finite number"),
        ("--ensemble_mode max --weights 1", "max takes no weights"),
        ("--ensemble_mode rank_mean --postprocess normal_gating", "gives ranks"),
        ("--ensemble_mode rank_mean --calibration c.json", "gives ranks"),
        ("--normal_alpha 0.5", "need --postprocess normal_gating"),
        ("--postprocess normal_gating --normal_alpha -1", "--normal_alpha must be"),
        (
            "--postprocess normal_gating --normal_class Unheard",
            "--normal_class 'Unheard' is not a class",
        ),
        ("--image_column x", "--image_column is a column of --test_csv"),
        ("--group_by StudyID", "--group_by is a column of --test_csv"),
        ("--group_by study", "images are not DICOM files: p00000_00.png"),
        ("--view_column View", "--view_column needs --group_by"),
        ("{image} --test_csv t.csv", "--test_csv is for many images"),
        ("{image} --ensemble_mode rank_mean", "rank_mean ranks an image among many"),
        (
            "--test_csv {tmp}/called.csv --group_by Effusion",
            "the class Effusion has the name of the image column",
        ),
    ],
)
def test_flags_and_files_that_cannot_be(
    refused: Refused, first: list, phantom: Path, tmp_path: Path, arguments: str, expected: str
) -> None:
    assert "no checkpoint is given" in refused(*first[2:])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").touch()
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    image = min((phantom / "images").iterdir())
    (tmp_path / "called.csv").write_text(f"ImageID,Effusion\n{image.name},{image.name}\n")
    assert expected in refused(*first, *arguments.format(tmp=tmp_path, image=image).split())


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("../outside.png", "leaves the image folder"),
        ("{tmp}/outside.png", "is outside"),
        ("outside.png", "1 of 2 images has no file in"),
        ("", "has no image"),
    ],
)
def test_names_that_leave_the_folder(
    refused: Refused, first: list, phantom: Path, tmp_path: Path, named: str, expected: str
) -> None:
    image = min((phantom / "images").iterdir())
    shutil.copy(image, tmp_path / "outside.png")
    csv = tmp_path / "t.csv"
    csv.write_text(f"ImageID,x\n{named.format(tmp=tmp_path)},1\n{image.name},1\n")
    error = refused(*first, "--test_csv", csv, "--on_bad_image", "skip")
    assert expected in error
    is_missing = "no file" in expected
    assert ("skip is for unreadable files only" in error) == is_missing
    assert ("or give their folder by --image_dir;" in error) == is_missing


def test_a_name_that_no_csv_can_hold(
    refused: Refused, first: list, six_images: list[Path], tmp_path: Path
) -> None:
    folder = copy_images(six_images[:2], tmp_path / "images")
    (folder / six_images[0].name).rename(folder / "Röntgen 胸.png")
    (folder / six_images[1].name).rename(folder / os.fsdecode(b"bad\xff.png"))
    error = refused(*first, "--image_dir", folder)
    assert r"1 of 2 image names are not valid UTF-8 (bad\xff.png)" in error


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"method": "../../tmp"}, 'names the method "../../tmp"'),
        ({"class_names": [f"class {n}" for n in range(1_000_000)]}, "claims 1,000,000 classes"),
        ({"class_names": [f"class {n}" for n in range(9_000)]}, "does not fit the model"),
        ({"class_names": None}, "has no valid list of classes"),
        ({"img_size": 10**9}, "has no valid image size"),
        ({"model": {"model": "no_such_net", "drop_rate": 0.1}}, "does not describe a valid model"),
        ({"model": {"model": "resnet18", "drop_rate": 0.1}}, "does not fit the model"),
        ({"format_version": 99}, "newer than"),
    ],
)
def test_a_checkpoint_with_wrong_facts(
    refused: Refused,
    first: list,
    checkpoints: list[Path],
    tmp_path: Path,
    facts: dict[str, object],
    expected: str,
) -> None:
    tensors, there = load_tensors(checkpoints[0])
    path = tmp_path / "lies.safetensors"
    save_tensors(path, tensors, there | facts)
    assert expected in refused(*first, "--checkpoints", path)


def test_links_out_of_the_folder(
    infer: Infer, refused: Refused, first: list, six_images: list[Path], tmp_path: Path
) -> None:
    folder = copy_images(six_images[:1], tmp_path / "images")
    other = copy_images(six_images[1:2], tmp_path / "other")
    arguments = [*first[:3], folder]
    # a link within the folder leaves nothing
    (folder / "within.png").symlink_to(folder / six_images[0].name)
    assert infer(*arguments, "--output", tmp_path / "within.csv")[0] == 0
    (folder / "within.png").unlink()
    for link, target in (("link.png", other / six_images[1].name), ("deeper", other)):
        (folder / link).symlink_to(target)
        assert "pass --follow_links" in refused(*arguments)
        out = tmp_path / f"{link}.csv"
        output_of(infer, *arguments, "--follow_links", "--output", out)
        assert len(pd.read_csv(out)) == 2
        (folder / link).unlink()
    # the folder itself may be one
    (tmp_path / "linked").symlink_to(folder)
    assert infer(*arguments[:3], tmp_path / "linked", "--output", tmp_path / "p.csv")[0] == 0


@pytest.mark.parametrize("single", [False, True])
def test_an_output_that_cannot_be(
    infer: Infer, first: list, six_images: list[Path], tmp_path: Path, single: bool
) -> None:
    there = tmp_path / "there.csv"
    there.write_text("kept")
    start = [six_images[0], *first[:2]] if single else first
    for path, expected in (
        (tmp_path, "cannot be written"),
        (there / "p.csv", "cannot be written"),
        (tmp_path / ("n" * 300), "File name too long"),
        (there, "there.csv exists"),
    ):
        assert expected in refusal(infer, *start, "--output", path)
    assert there.read_text() == "kept"


def test_no_input_is_overwritten(
    infer: Infer, checkpoints: list[Path], six_images: list[Path], tmp_path: Path
) -> None:
    images = copy_images(six_images, tmp_path / "images")
    image, csv = images / six_images[0].name, tmp_path / "predictions.csv"
    csv.write_text(f"ImageID,Effusion\n{image.name},0\n")
    model, recipe = tmp_path / "model.safetensors", tmp_path / "ensemble.json"
    shutil.copy(checkpoints[0], model)
    names = load_tensors(model)[1]["class_names"]
    write_recipe(recipe, [("run", 1.0, [model])], names, {})
    own = ["--checkpoints", model, "--image_dir", images]
    for arguments, path in (
        ([*own, "--test_csv", csv], csv),
        ([*own, "--sample_submission", csv], csv),
        ([*own, "--calibration", csv], csv),
        (own, image),
        (["--ensemble", recipe, "--image_dir", images], recipe),
        (["--ensemble", recipe, "--image_dir", images], model),
        ([image, "--checkpoints", model], image),
    ):
        before = path.read_bytes()
        error = refusal(infer, *arguments, "--output", path, "--overwrite")
        assert "that is read" in error or "would overwrite" in error
        assert path.read_bytes() == before
