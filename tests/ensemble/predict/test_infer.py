"""`python -m ensemble.infer`: predictions of the models, image by image and by class name."""

from pathlib import Path

import numpy as np
import pandas as pd

from core.models.checkpoint import load_tensors, save_tensors
from methods import load_model
from tests.helpers.calls import output_of, refusal
from tests.helpers.infer_files import (
    HEAD,
    Infer,
    copy_images,
    predict_to_frame,
    reference_probabilities,
)


def test_every_image_of_a_folder_by_two_models(
    infer: Infer, checkpoints: list[Path], six_images: list[Path], tmp_path: Path
) -> None:
    folder, out = copy_images(six_images[:3], tmp_path / "images"), tmp_path / "p.csv"
    (folder / "deeper").mkdir()
    (folder / six_images[2].name).rename(folder / "deeper" / "c.png")
    (folder / "notes.txt").write_text("no image")
    assert f"predictions  {out} (3 images by 2 models" in output_of(
        infer, "--checkpoints", *checkpoints, "--image_dir", folder, "--output", out
    )
    frame = pd.read_csv(out)
    classes = list(load_model(checkpoints[0])[1].class_names)
    assert list(frame) == ["ImageID", *classes]
    found = frame.set_index("ImageID").loc[[six_images[0].name, six_images[1].name, "deeper/c.png"]]
    assert list(frame["ImageID"]) == sorted(found.index)
    expected = (
        reference_probabilities(checkpoints[0], six_images[:3])
        + reference_probabilities(checkpoints[1], six_images[:3])
    ) / 2
    np.testing.assert_allclose(found.to_numpy(), expected, atol=2e-6)


def test_the_images_of_a_csv_in_its_order_with_weights_and_without_views(
    infer: Infer, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(phantom / "test.csv").sample(7, random_state=1)
    table.to_csv(tmp_path / "t.csv", index=False)
    frame = predict_to_frame(
        infer,
        *("--checkpoints", *checkpoints, "--weights", 1, 3, "--no-use_tta", "--batch_size", 3),
        *("--test_csv", tmp_path / "t.csv", "--image_dir", phantom / "images"),
        output=tmp_path / "p.csv",
    )
    assert list(frame.index) == list(table["ImageID"])
    paths = [phantom / "images" / name for name in frame.index]
    one, other = (reference_probabilities(path, paths, mirror=False) for path in checkpoints)
    np.testing.assert_allclose(frame.to_numpy(), (one + 3 * other) / 4, atol=2e-6)


def test_a_model_that_gives_no_numbers_writes_nothing(
    infer: Infer, checkpoints: list[Path], six_flags: list, tmp_path: Path
) -> None:
    tensors, facts = load_tensors(checkpoints[0])
    tensors[HEAD[1]][2] = float("nan")
    save_tensors(tmp_path / "nan.safetensors", tensors, facts)
    more = ["--checkpoints", tmp_path / "nan.safetensors", "--output", tmp_path / "p.csv"]
    assert "nan.safetensors gives probabilities that are not finite" in refusal(
        infer, *six_flags, *more
    )
    assert not (tmp_path / "p.csv").exists()
