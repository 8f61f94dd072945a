"""`ensemble.infer` with bad input: one sentence, exit code 2, and nothing is written or lost."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from core.models.checkpoint import load_tensors, save_tensors
from ensemble.predict.blocks import parts_folder
from ensemble.predict.ensemble_json import Member, write_recipe

Infer = Callable[..., tuple[int, str, str]]


def refused(infer: Infer, output: Path, *arguments: object) -> str:
    """The sentence with which a command line is refused."""
    code, _, error = infer(*arguments, "--output", output)
    assert code == 2, arguments
    assert error.startswith("error: ")
    assert error.count("\n") == 1, error
    assert not output.exists()
    assert not parts_folder(output).exists()
    return error


@pytest.fixture
def first(checkpoints: list[Path], phantom: Path) -> list[object]:
    return ["--checkpoints", checkpoints[0], "--image_dir", phantom / "images"]


def test_a_name_that_no_csv_can_hold(
    infer: Infer, first: list[object], six_images: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(six_images[0], folder / "Röntgen 胸.png")
    shutil.copy(six_images[1], folder / os.fsdecode(b"bad\xff.png"))
    error = refused(infer, tmp_path / "p.csv", *first[:2], "--image_dir", folder)
    assert r"1 of 2 images without a name in UTF-8 (bad\xff.png): no CSV can hold it" in error


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda data: data[: len(data) // 2], "no whole safetensors file"),
        (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "is damaged"),
        (lambda _: b"\x80\x04\x95pickle", "no whole safetensors file"),
    ],
)
def test_a_checkpoint_that_is_damaged(
    infer: Infer,
    first: list[object],
    checkpoints: list[Path],
    tmp_path: Path,
    spoil: Callable[[bytes], bytes],
    told: str,
) -> None:
    path = tmp_path / "spoiled.safetensors"
    path.write_bytes(spoil(checkpoints[1].read_bytes()))
    sentence = refused(infer, tmp_path / "p.csv", *first, "--checkpoints", checkpoints[0], path)
    assert f"{path} " in sentence
    assert told in sentence


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"method": "../../tmp"}, 'names the method "../../tmp"'),
        ({"method": "os"}, 'names the method "os"'),
        ({"method": ["standard_head"]}, "names the method"),
        ({"class_names": [f"class {n}" for n in range(1_000_000)]}, "claims 1,000,000 classes"),
        ({"class_names": [f"class {n}" for n in range(9_000)]}, "does not fit the model"),
        ({"class_names": None}, "does not name its classes"),
        ({"class_names": 7}, "does not name its classes"),
        ({"img_size": True}, "what size its images have"),
        ({"img_size": 10**9}, "what size its images have"),
        ({"model": {"model": "no_such_net", "drop_rate": 0.1}}, "what model it holds"),
        ({"model": {"model": "resnet18", "drop_rate": 0.1}}, "does not fit the model"),
        ({"model": None}, "what model it holds"),
        ({"format_version": 99}, "newer than"),
    ],
)
def test_a_checkpoint_that_lies(
    infer: Infer,
    checkpoints: list[Path],
    phantom: Path,
    tmp_path: Path,
    facts: dict[str, object],
    told: str,
) -> None:
    tensors, there = load_tensors(checkpoints[0])
    path = tmp_path / "lies.safetensors"
    save_tensors(path, tensors, there | facts)
    arguments = ["--checkpoints", path, "--image_dir", phantom / "images"]
    assert told in refused(infer, tmp_path / "p.csv", *arguments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--weights", "1", "2"], "2 weights do not fit 1 checkpoint"),
        (["--weights", "-1"], "weights must be at least 0"),
        (["--weights", "inf"], "--weights must be a finite number"),
        (["--ensemble_mode", "max", "--weights", "1"], "max takes no weights"),
        (["--ensemble_mode", "median", "--weights", "1"], "median takes no weights"),
        (["--ensemble_mode", "mode"], "there is no --ensemble_mode 'mode'"),
        (["--tta_config", "flipscale"], "did you mean 'flip_scale'"),
        (["--ensemble_mode", "rank_mean", "--postprocess", "normal_gating"], "gives ranks"),
        (["--ensemble_mode", "rank_mean", "--calibration", "c.json"], "gives ranks"),
        (["--normal_alpha", "0.5"], "belong to --postprocess normal_gating"),
        (["--postprocess", "normal_gating", "--normal_alpha", "-1"], "--normal_alpha must be"),
        (["--postprocess", "normal_gating", "--normal_alpha", "nan"], "--normal_alpha must be"),
        (["--image_column", "x"], "--image_column names a column of --test_csv"),
        (["--group_by", "StudyID"], "--group_by names a column of --test_csv"),
        (["--view_column", "View"], "--view_column belongs to --group_by"),
        (["--calibration", "none.json"], "none.json"),
        (["--sample_submission", "none.csv"], "none.csv"),
        (["--ensemble", "none.json"], "--ensemble names checkpoints and weights"),
        (["--batch_size", "0"], "--batch_size must be at least 1"),
    ],
)
def test_flags_that_cannot_be(
    infer: Infer, first: list[object], tmp_path: Path, arguments: list[str], told: str
) -> None:
    assert told in refused(infer, tmp_path / "p.csv", *first, *arguments)


def test_one_image_and_what_is_for_many(infer: Infer, first: list[object], phantom: Path) -> None:
    image = next((phantom / "images").iterdir())
    for more in (["--test_csv", "t.csv"], ["--ensemble_mode", "rank_mean"]):
        code, _, error = infer(image, *first[:2], *more)
        assert code == 2
        assert f"{more[0]}" in error
        assert "is for many images" in error


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("../outside.png", "leaves the image folder"),
        ("a/../../outside.png", "leaves the image folder"),
        ("{tmp}/outside.png", "is not below"),
        ("C:\\outside.png", "is not below"),
        ("outside.png", "have no file in"),
        ("", "names no image"),
    ],
)
def test_names_that_leave_the_folder(
    infer: Infer, first: list[object], phantom: Path, tmp_path: Path, named: str, told: str
) -> None:
    shutil.copy(next((phantom / "images").iterdir()), tmp_path / "outside.png")
    csv = tmp_path / "t.csv"
    names = [named.format(tmp=tmp_path), next((phantom / "images").iterdir()).name]
    pd.DataFrame({"ImageID": names, "x": 1}).to_csv(csv, index=False)
    assert told in refused(infer, tmp_path / "p.csv", *first, "--test_csv", csv)


def test_links_out_of_the_folder(
    infer: Infer, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    sources = sorted((phantom / "images").iterdir())
    folder, other, out = tmp_path / "images", tmp_path / "other", tmp_path / "p.csv"
    for path in (folder, other):
        path.mkdir()
    shutil.copy(sources[0], folder)
    shutil.copy(sources[1], other)
    arguments = ["--checkpoints", checkpoints[0], "--image_dir", folder]
    # a link within the folder leaves nothing
    (folder / "within.png").symlink_to(folder / sources[0].name)
    assert infer(*arguments, "--output", tmp_path / "within.csv")[0] == 0
    (folder / "within.png").unlink()
    for link, target in (("link.png", other / sources[1].name), ("deeper", other)):
        (folder / link).symlink_to(target)
        assert "pass --follow_links" in refused(infer, out, *arguments)
        code, _, error = infer(*arguments, "--follow_links", "--output", out)
        assert code == 0, error
        assert len(pd.read_csv(out)) == 2
        out.unlink()
        (folder / link).unlink()
    # the folder itself may be one
    (tmp_path / "linked").symlink_to(folder)
    assert infer(*arguments[:3], tmp_path / "linked", "--output", out)[0] == 0


def test_an_output_that_cannot_be(infer: Infer, first: list[object], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "p.csv"):
        code, _, error = infer(*first, "--output", path)
        assert code == 2
        assert "cannot be written" in error
    code, _, error = infer(*first, "--output", tmp_path / ("n" * 300))
    assert code == 2
    assert "cannot be used: File name too long" in error


def test_no_input_is_overwritten(
    infer: Infer,
    first: list[object],
    checkpoints: list[Path],
    phantom: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = tmp_path / "images"
    shutil.copytree(phantom / "images", images)
    image = sorted(images.iterdir())[0]
    table = pd.DataFrame({"ImageID": [image.name], "Effusion": [0]})
    csv = tmp_path / "predictions.csv"
    table.to_csv(csv, index=False)
    model = tmp_path / "model.safetensors"
    shutil.copy(checkpoints[0], model)
    names = load_tensors(model)[1]["class_names"]
    recipe = tmp_path / "ensemble.json"
    write_recipe(recipe, [Member("run", 1.0, (model,))], names, {})
    own: list[object] = ["--checkpoints", model, "--image_dir", images]
    monkeypatch.chdir(tmp_path)
    for arguments, output in (
        ([*own, "--test_csv", csv], None),
        ([*own, "--sample_submission", csv], csv),
        ([*own, "--calibration", csv], csv),
        (own, model),
        (own, image),
        (["--ensemble", recipe, "--image_dir", images], recipe),
        (["--ensemble", recipe, "--image_dir", images], model),
        ([image, "--checkpoints", model], image),
        ([image, "--checkpoints", model], model),
    ):
        path = output or csv
        before = path.read_bytes()
        given = [] if output is None else ["--output", output]
        code, _, error = infer(*arguments, *given, "--overwrite")
        assert code == 2, arguments
        assert "that is read" in error
        assert path.read_bytes() == before


def test_one_image_into_a_file_that_cannot_be(
    infer: Infer, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    image = sorted((phantom / "images").iterdir())[0]
    there = tmp_path / "there.csv"
    there.write_text("kept")
    for output in (image / "x.csv", Path("/proc/none/y.csv"), there, tmp_path):
        code, _, error = infer(image, "--checkpoints", checkpoints[0], "--output", output)
        assert code == 2, output
        assert error.count("\n") == 1
    assert there.read_text() == "kept"


@pytest.mark.parametrize("flag", ["--group_by", "--image_column"])
def test_a_column_of_names_that_is_called_like_a_class(
    infer: Infer, first: list[object], phantom: Path, tmp_path: Path, flag: str
) -> None:
    names = [path.name for path in sorted((phantom / "images").iterdir())[:2]]
    csv = tmp_path / "t.csv"
    pd.DataFrame({"ImageID": names, "Effusion": names}).to_csv(csv, index=False)
    told = refused(infer, tmp_path / "p.csv", *first, "--test_csv", csv, flag, "Effusion")
    assert "a class is named Effusion" in told
