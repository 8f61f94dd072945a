"""Images of other sizes: resizing in the graph and by the code on the model card."""

import json
import re
import runpy
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from core.data.images.decode import load_image, resize
from core.models.checkpoint import load_tensors, save_tensors
from ensemble.exporting.resize_graph import resize_in_graph
from methods import load_model
from tests.conftest import Call
from tests.helpers.calls import output_of

SHAPES = [(64, 40), (40, 64), (64, 64), (96, 32), (32, 32), (513, 377), (3000, 2047)]


@pytest.mark.parametrize("shape", [*SHAPES, (20, 64), (31, 30), (1, 1), (7, 300)])
def test_pixels_are_those_of_opencv(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, *shape), dtype=np.uint8)
    found = resize_in_graph(torch.from_numpy(pixels), 32).numpy()
    truth = np.stack([resize(one, 32) for one in pixels[:, 0]])[:, None].astype(float)
    assert np.abs(found - truth).max() <= 1
    # ties by area; bilinear, OpenCV has fixed points
    assert (found != truth).mean() < (0.02 if min(shape) >= 32 else 0.15)


@pytest.fixture
def spread(checkpoints: list[Path], phantom: Path, tmp_path: Path) -> Path:
    """A checkpoint with probabilities about .5 that differ from image to image."""
    tensors, facts = load_tensors(checkpoints[0])
    path = tmp_path / "spread.safetensors"
    tensors["head.6.weight"] *= 200
    save_tensors(path, tensors, facts)
    paths = sorted((phantom / "images").iterdir())
    images = torch.from_numpy(np.stack([load_image(path, 32) for path in paths]))[:, None]
    with torch.no_grad():
        tensors["head.6.bias"] -= load_model(path).module(images).mean(dim=0)
    save_tensors(path, tensors, facts)
    return path


@pytest.mark.parametrize("flags", [("--any_size",), ("--any_size", "--input", "float"), ()])
def test_the_code_on_the_card_gives_what_the_model_gives(
    export: Call,
    spread: Path,
    phantom: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
) -> None:
    images = ("--image_dir", phantom / "images")
    printed = output_of(export, "--checkpoints", spread, "--no-scores", *images, *flags)
    assert ("noise of another size" in printed) == ("--any_size" in flags)
    folder, model = tmp_path / "out", load_model(spread)
    found = re.search(r"```python\n(.*?)```", (folder / "MODEL_CARD.md").read_text(), re.S)
    assert found is not None
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    assert "to a square of 32 pixels by area (OpenCV's INTER_AREA)" in facts["resizing"]
    (folder / "card.py").write_text(found[1])
    monkeypatch.chdir(folder)
    noise = np.random.default_rng(0).integers(0, 256, (150, 97), dtype=np.uint8)
    apart = []
    for pixels in (noise, noise[:64, :64], noise[:40, :32], noise[:24]):
        cv2.imwrite("image.png", pixels)
        truth = model.predict("image.png").to_numpy()
        scope = runpy.run_path("card.py")
        assert scope["names"] == model.class_names == json.loads(facts["class_names"])
        np.testing.assert_allclose(scope["probabilities"], truth, atol=1e-3)
        bicubic = np.asarray(Image.fromarray(pixels).resize((32, 32)))
        apart.append(np.abs(model.predict(bicubic).to_numpy() - truth).max())
    # Pillow's default is noticed
    assert min(apart) > 0.004
