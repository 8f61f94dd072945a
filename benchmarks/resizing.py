"""How much do other resizing methods change probabilities? Half a minute for a hundred X-rays.

    python -m benchmarks.resizing --checkpoint a.safetensors --image_dir images

Each image of a folder, by one checkpoint: resized as in training, and by the defaults of other
libraries. Prints the differences of probabilities over all images and classes.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from core.config.command_line import run
from core.errors import pluralize

# uint8 (H, W) and a size → uint8 (size, size)
Resizer: TypeAlias = Callable[[Any, int], Any]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint of the model")
    parser.add_argument("--image_dir", type=Path, required=True, help="folder of larger images")
    config = parser.parse_args()
    import numpy as np

    from core.data.images.decode import read_image
    from core.data.tables.images_to_predict import find_images
    from methods import load_model

    model, paths = load_model(config.checkpoint), find_images(config.image_dir, None).paths
    images = [read_image(path) for path in paths]
    truth = model.predict(images)
    print(
        f"{pluralize(len(images), 'image')}, to {model.image_size} px; difference of probabilities"
    )
    for name, resize in resizers().items():
        found = model.predict([resize(image, model.image_size) for image in images])
        difference = (found - truth).abs().to_numpy()
        mean, top, largest = difference.mean(), np.quantile(difference, 0.99), difference.max()
        print(f"{name:<28} mean {mean:.2%}  99 % up to {top:.1%}  largest {largest:.1%}")


def resizers() -> dict[str, Resizer]:
    """Resizing methods of other libraries, by name."""
    import cv2
    import numpy as np
    import torch
    from PIL import Image
    from torch.nn.functional import interpolate

    def pillow(filter: Image.Resampling) -> Resizer:
        return lambda pixels, size: np.asarray(Image.fromarray(pixels).resize((size, size), filter))

    def opencv(pixels: np.ndarray, size: int) -> np.ndarray:
        return cv2.resize(pixels, (size, size))

    def pytorch(pixels: np.ndarray, size: int) -> np.ndarray:
        tensor = torch.from_numpy(pixels)[None, None].float()
        return interpolate(tensor, (size, size), mode="bilinear")[0, 0].round().byte().numpy()

    return {
        "Pillow, bicubic (default)": pillow(Image.Resampling.BICUBIC),
        "Pillow, bilinear": pillow(Image.Resampling.BILINEAR),
        "OpenCV, bilinear (default)": opencv,
        "PyTorch, bilinear": pytorch,
    }


if __name__ == "__main__":
    run(main)
