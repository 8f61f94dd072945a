"""Position of a landmark in each augmented copy, against written-out transforms."""

import cv2
import numpy as np
import pytest
import torch

from core.models.predict import mirror
from ensemble.predict.tta import TTA, brighten, scaled_mirror, turn_and_scale

HEIGHT, WIDTH = 60, 80


def picture(row: float = 20.0, column: float = 60.0) -> torch.Tensor:
    """A bright spot on a smooth slope, (1, 1, H, W) floats in [0, 1]; no symmetry of any kind."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8)
    slope = 0.2 * rows / HEIGHT + 0.1 * columns / WIDTH
    return torch.from_numpy(0.7 * spot + slope).float()[None, None]


def brightest(image: torch.Tensor) -> tuple[int, int]:
    place = int(image[0, 0].argmax())
    return place // WIDTH, place % WIDTH


def warped(image: torch.Tensor, degrees: float, scale: float) -> np.ndarray:
    """The same by OpenCV: about the centre, bilinear, reflected at the edges."""
    centre = ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, degrees, scale)
    return cv2.warpAffine(
        image[0, 0].numpy(),
        matrix,
        (WIDTH, HEIGHT),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )


@pytest.mark.parametrize(
    ("degrees", "scale"), [(5, 1), (-5, 1), (0, 1.1), (0, 0.9), (0, 1.05), (0, 0.95), (30, 0.7)]
)
def test_turned_and_scaled_as_by_opencv(degrees: float, scale: float) -> None:
    view = turn_and_scale(picture(), degrees=degrees, scale=scale)
    # OpenCV rounds places to 1/32 of a pixel
    np.testing.assert_allclose(view[0, 0].numpy(), warped(picture(), degrees, scale), atol=0.02)


def test_mirrors() -> None:
    image = picture()
    assert brightest(mirror(image)) == (20, WIDTH - 1 - 60)
    assert torch.equal(mirror(mirror(image)), image)
    found = brightest(scaled_mirror(image, scale=1.05))
    row, column = brightest(turn_and_scale(image, scale=1.05))
    assert found == (row, WIDTH - 1 - column)


def test_brightness() -> None:
    image = torch.tensor([0.0, 0.5, 0.95, 1.0])
    assert brighten(image, factor=1.1).tolist() == pytest.approx([0, 0.55, 1, 1])
    assert brighten(image, factor=0.9).tolist() == pytest.approx([0, 0.45, 0.855, 0.9])


def test_the_named_sets() -> None:
    counts = {name: len(views) for name, views in TTA.items()}
    assert counts == {
        **{"none": 1, "flip": 2, "light": 4},
        **{"medium": 6, "heavy": 8, "flip_scale": 6},
    }
    image = picture()
    expected = {
        "none": [image],
        "flip": [image, mirror(image)],
        "light": [turn_and_scale(image, degrees=d) for d in (5, -5)],
        "medium": [turn_and_scale(image, scale=s) for s in (1.1, 0.9)],
        "heavy": [brighten(image, factor=f) for f in (1.1, 0.9)],
        "flip_scale": [
            *(turn_and_scale(image, scale=s) for s in (1.05, 0.95)),
            *(mirror(turn_and_scale(image, scale=s)) for s in (1.05, 0.95)),
        ],
    }
    for name, last in expected.items():
        made = [view(image) for view in TTA[name]]
        assert torch.equal(made[0], image)
        for view, wanted in zip(made[-len(last) :], last, strict=True):
            np.testing.assert_allclose(view, wanted, atol=1e-6)
