"""One image, and what the models say of it, as a table in the terminal."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from core.data.images.decode import read_image, resize
from core.io.atomic import make_folder, write_atomically
from ensemble.predict.predictor import Predictor
from ensemble.predict.write_csv import Finish


def predict_single(predictor: Predictor, finish: Finish, image: Path, output: Path | None) -> None:
    """Print a line for each class, the most probable first; write them where `output` is given.

    Raises UserError where the image cannot be read, or `output` cannot be written.
    """
    probabilities = probabilities_of(predictor, finish, read_image(image))
    if not predictor.fabric.is_global_zero:
        return
    found = pd.Series(probabilities, index=predictor.class_names)
    print(f"\n{image}")
    for name, probability in found.sort_values(ascending=False, kind="stable").items():
        print(f"{probability:8.4f}  {name}")
    if output is not None:
        frame = found.to_frame().T
        frame.insert(0, "ImageID", image.name)
        make_folder(output.parent)
        write_atomically(output, lambda path: frame.to_csv(path, index=False, float_format="%.8g"))
        print(f"predictions  {output} (1 image)")


def probabilities_of(
    predictor: Predictor, finish: Finish, pixels: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """What all models together say of one image, uint8 (H, W) of any size: probabilities (C,).

    Raises UserError where a model gives what is not finite.
    """
    sizes = [torch.from_numpy(resize(pixels, size))[None, None] for size in predictor.sizes]
    merged = finish.merged(predictor(sizes).astype(np.float64))
    if finish.postprocess is not None:
        merged = finish.postprocess(merged)
    return merged[0]
