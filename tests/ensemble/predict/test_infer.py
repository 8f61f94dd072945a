"""`python -m ensemble.infer`: what it writes is what the models say, image by image and by name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from core.models.checkpoint import load_tensors, save_tensors
from methods import load_model
from tests.helpers.reference_predictions import said

Infer = Callable[..., tuple[int, str, str]]


def test_every_image_of_a_folder_by_two_models(
    infer: Infer, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    out = tmp_path / "p.csv"
    (tmp_path / "images" / "deeper").mkdir(parents=True)
    names = ["a.png", "b.png", "deeper/c.png"]
    sources = sorted((phantom / "images").iterdir())
    for name, source in zip(names, sources, strict=False):
        shutil.copy(source, tmp_path / "images" / name)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    code, printed, error = infer(
        "--checkpoints", *checkpoints, "--image_dir", tmp_path / "images", "--output", out
    )
    assert code == 0, error
    assert f"predictions  {out} (3 images by 2 models" in printed
    frame = pd.read_csv(out)
    classes = list(load_model(checkpoints[0])[1].class_names)
    assert list(frame) == ["ImageID", *classes]
    assert list(frame["ImageID"]) == names
    expected = (said(checkpoints[0], sources[:3]) + said(checkpoints[1], sources[:3])) / 2
    np.testing.assert_allclose(frame[classes].to_numpy(), expected, atol=2e-6)


def test_the_images_of_a_csv_in_its_order_with_weights_and_without_views(
    infer: Infer, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(phantom / "test.csv").sample(7, random_state=1)
    table.to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / "p.csv"
    code, _, error = infer(
        *("--checkpoints", *checkpoints, "--weights", 1, 3, "--no-use_tta", "--batch_size", 3),
        *("--test_csv", tmp_path / "t.csv", "--image_dir", phantom / "images", "--output", out),
    )
    assert code == 0, error
    frame = pd.read_csv(out, index_col="ImageID")
    assert list(frame.index) == list(table["ImageID"])
    paths = [phantom / "images" / name for name in frame.index]
    one, other = (said(path, paths, mirror=False) for path in checkpoints)
    np.testing.assert_allclose(frame.to_numpy(), (one + 3 * other) / 4, atol=2e-6)


def test_classes_are_matched_by_name(
    infer: Infer, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    tensors, facts = load_tensors(checkpoints[0])
    order = np.random.default_rng(0).permutation(len(facts["class_names"]))
    facts["class_names"] = [facts["class_names"][at] for at in order]
    last = [name for name in tensors if name.startswith("head.6.")]
    assert len(last) == 2
    turned = tensors | {name: tensors[name][order] for name in last}
    save_tensors(tmp_path / "turned.safetensors", turned, facts)
    flags = ["--test_csv", phantom / "test.csv", "--image_dir", phantom / "images"]
    both = [checkpoints[0], tmp_path / "turned.safetensors"]
    assert infer("--checkpoints", both[0], *flags, "--output", tmp_path / "1.csv")[0] == 0
    assert infer("--checkpoints", *both, *flags, "--output", tmp_path / "2.csv")[0] == 0
    one, two = (pd.read_csv(tmp_path / name, index_col=0) for name in ("1.csv", "2.csv"))
    assert list(one) == list(two)
    np.testing.assert_allclose(one.to_numpy(), two.to_numpy(), atol=1e-6)


def test_what_it_refuses_before_it_predicts(
    infer: Infer, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    images, out, empty = phantom / "images", tmp_path / "p.csv", tmp_path / "empty"
    empty.mkdir()
    (empty / "readme.txt").write_text("")
    spoiled = tmp_path / "spoiled"
    shutil.copytree(images, spoiled)
    bad = sorted(spoiled.iterdir())[3:5]
    bad[0].write_bytes(bad[0].read_bytes()[:200])
    bad[1].write_bytes(b"")
    other = tmp_path / "other.csv"
    other.write_text("x,y\n1,2\n")
    tensors, facts = load_tensors(checkpoints[0])
    facts["class_names"][0] = "Unheard_Of"
    save_tensors(tmp_path / "renamed.safetensors", tensors, facts)
    first = ["--checkpoints", checkpoints[0]]
    for arguments, told in (
        ([*first, "--image_dir", empty], "holds no image"),
        ([*first, "--image_dir", tmp_path / "none"], "does not exist"),
        ([*first, "--image_dir", images, "--test_csv", tmp_path / "no.csv"], "There is no file"),
        ([*first, "--image_dir", images, "--test_csv", other], "no column with the images' names"),
        (
            [*first, "--image_dir", spoiled],
            f"2 of 110 images cannot be read: {bad[0].name}, {bad[1].name}",
        ),
        (["--checkpoints", tmp_path / "no", "--image_dir", images], "is not there"),
        (
            [*first, tmp_path / "renamed.safetensors", "--image_dir", images],
            "do not have the same classes: Effusion, Unheard_Of",
        ),
        ([*first, "--image_dir", images, "--weights", 0], "one of them above it"),
        (["--image_dir", images], "no checkpoint is given"),
    ):
        code, _, error = infer(*arguments, "--output", out)
        assert code == 2, arguments
        assert told in error
        assert error.count("\n") == 1, error
        assert not out.exists()
    # labels have the columns of predictions, and are none
    classes = load_tensors(checkpoints[0])[1]["class_names"]
    labels = tmp_path / "labels.csv"
    pd.read_csv(phantom / "train.csv")[["ImageID", *classes]].to_csv(labels, index=False)
    before = labels.read_bytes()
    for more in ([], ["--test_csv", labels]):
        code, _, error = infer(*first, "--image_dir", images, *more, "--output", labels)
        assert code == 2
        assert "labels.csv" in error
        assert labels.read_bytes() == before
    for path, more in ((other, []), (tmp_path, []), (other, ["--test_csv", other])):
        code, _, error = infer(*first, "--image_dir", images, *more, "--output", path)
        assert code == 2
        assert str(path) in error
    assert other.read_text() == "x,y\n1,2\n"


def test_predictions_of_before_are_replaced_only_if_asked_for(
    infer: Infer, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    flags = ["--test_csv", phantom / "test.csv", "--image_dir", phantom / "images"]
    out = tmp_path / "p.csv"
    assert infer("--checkpoints", checkpoints[0], *flags, "--output", out)[0] == 0
    before = out.read_bytes()
    code, _, error = infer("--checkpoints", checkpoints[1], *flags, "--output", out)
    assert code == 2
    assert f"{out} is there already" in error
    assert out.read_bytes() == before
    more = ["--output", out, "--overwrite"]
    assert infer("--checkpoints", checkpoints[1], *flags, *more)[0] == 0
    other = out.read_bytes()
    assert other != before
    assert infer("--checkpoints", checkpoints[0], *flags, *more)[0] == 0
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_a_model_that_gives_no_numbers_writes_nothing(
    infer: Infer, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    tensors, facts = load_tensors(checkpoints[0])
    tensors["head.6.bias"][2] = float("nan")
    save_tensors(tmp_path / "nan.safetensors", tensors, facts)
    images, out = phantom / "images", tmp_path / "p.csv"
    flags = ["--checkpoints", tmp_path / "nan.safetensors", "--image_dir", images]
    code, _, error = infer(*flags, "--output", out)
    assert code == 2
    assert "nan.safetensors gives probabilities that are not finite" in error
    assert not out.exists()
