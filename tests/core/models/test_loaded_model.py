"""`load_model(path).predict`: the run's out-of-fold values, and refused arrays."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from core.data.images.decode import read_image
from core.errors import UserError
from core.models.checkpoint import load_tensors, save_tensors
from methods import load_model
from tests.helpers.infer_files import reference_probabilities
from tests.helpers.training.small_run import METHODS, MODEL

GREY = np.arange(64 * 40, dtype=np.uint8).reshape(64, 40)
NAN = np.where(GREY == 7, np.nan, GREY / 255)


@pytest.mark.parametrize("method", METHODS)
def test_out_of_fold_values_come_back(
    finished_method: Callable[[str], tuple[Path, str]], method: str, phantom: Path
) -> None:
    run = finished_method(method)[0]
    for fold in (1, 2):
        model = load_model(run / f"{MODEL}_fold{fold}.safetensors")
        truth = pd.read_csv(run / f"{MODEL}_fold{fold}_val.csv", index_col=0)
        paths = [phantom / "images" / name for name in truth.index]
        found = model.predict(paths)
        assert list(found.index) == list(map(str, paths))
        # a list, as pandas needs it to select columns
        np.testing.assert_allclose(found[model.class_names], truth[model.class_names], atol=1e-6)
        # another way to the same size is noticed
        others = [cv2.resize(read_image(path), (32, 32), interpolation=0) for path in paths]
        assert np.abs(model.predict(others).to_numpy() - truth.to_numpy()).max() > 2e-5


def test_a_path_and_its_array_are_one_image(finished: tuple[Path, str], phantom: Path) -> None:
    model = load_model(finished[0] / f"{MODEL}_fold1.safetensors")
    paths = sorted((phantom / "images").iterdir())[:20]
    arrays = [read_image(path) for path in paths]
    truth = model.predict(paths).to_numpy()
    # a module that was put into training mode would normalise by the batch
    model.module.train()
    np.testing.assert_allclose(model.predict(str(paths[0])), truth[:1], atol=1e-6)
    np.testing.assert_allclose(model.predict(arrays[1]), truth[1:2], atol=1e-6)
    mixed: list[Any] = [paths[2], arrays[3], arrays[4] / 255, (arrays[5] / 255).astype(np.float16)]
    found = model.predict(mixed)
    assert list(found.index) == [str(paths[2]), 1, 2, 3]
    np.testing.assert_allclose(found, truth[2:6], atol=1e-6)
    np.testing.assert_allclose(model.predict(iter(arrays)), truth, atol=1e-6)


def test_a_run_without_mirror_images_predicts_without_them(
    finished: tuple[Path, str], phantom: Path, tmp_path: Path
) -> None:
    tensors, facts = load_tensors(finished[0] / f"{MODEL}_fold1.safetensors")
    facts["settings"]["tta"] = False
    save_tensors(tmp_path / "a.safetensors", tensors, facts)
    paths = sorted((phantom / "images").iterdir())[:3]
    found = load_model(tmp_path / "a.safetensors").predict(paths)
    truth = reference_probabilities(tmp_path / "a.safetensors", paths, mirror=False)
    np.testing.assert_allclose(found, truth, atol=1e-6)
    assert np.abs(reference_probabilities(tmp_path / "a.safetensors", paths) - truth).max() > 1e-5


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (
            GREY.astype(np.float32),
            "image 0 of predict has floats from 0 to 255: give floats from 0",
        ),
        ([GREY, GREY / 127.5], "image 1 of predict has floats from 0 to 2: give floats from 0"),
        (GREY / 255 - 0.5, "has floats from -0.5 to 0.5"),
        (NAN, "has floats from nan to nan: give floats from 0 to 1 without NaN"),
        (GREY.astype(np.int64), "has the type int64: give uint8 from 0 to 255, or floats"),
        (GREY > 7, "has the type bool"),
        (np.array(["a.png"]), "has the shape (1,): give one grey image (height, width)"),
        (np.stack([GREY] * 3), "has the shape (3, 64, 40)"),
        (GREY[:0], "has the shape (0, 40)"),
        ([GREY.tolist()], "image 0 of predict is a list: give a path or a NumPy array"),
        ([], "predict got no image: give a path, a NumPy array, or a list of these"),
        (None, "predict got a NoneType"),
        ("absent.png", "absent.png cannot be read"),
    ],
)
def test_other_arrays_are_refused(finished: tuple[Path, str], images: Any, sentence: str) -> None:
    model = load_model(finished[0] / f"{MODEL}_fold1.safetensors")
    with pytest.raises(UserError, match=re.escape(sentence)):
        model.predict(images)


def test_it_describes_itself(finished: tuple[Path, str]) -> None:
    model = load_model(finished[0] / f"{MODEL}_fold1.safetensors")
    module, info = model
    assert (module, info) == (model.module, model.info)
    assert (model.method, model.image_size, model.facts["fold"]) == ("standard_head", 32, 1)
    assert model.class_names == list(info.class_names)
