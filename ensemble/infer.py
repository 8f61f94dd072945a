"""Checkpoints → a CSV of probabilities, merged over views and models.

    python -m ensemble.infer --checkpoints a.safetensors b.safetensors --weights 1.0 1.5
      --test_csv test.csv --image_dir images --tta_config flip_scale --output submission.csv

On several devices: `fabric run ensemble/infer.py --devices 4 -- ...`. The same command goes on
where a run was stopped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from core.config.command_line import flags, run
from core.errors import UserError
from ensemble.predict.config import Config

if TYPE_CHECKING:  # imported where they are used, so that --help is answered at once
    from collections.abc import Sequence

    from core.data.tables.label_table import LabelTable
    from ensemble.predict.predictor import Predictor


def main() -> None:
    """The command line."""
    config = flags(Config(), __doc__)
    config.check()
    # late, so that --help and a mistyped flag are answered at once
    from core.data.images.size_limit import max_pixels
    from core.runtime.fabric import make_fabric, worker_count
    from ensemble.predict.calibration import postprocess_of
    from ensemble.predict.ensemble import Ensemble
    from ensemble.predict.predictor import Predictor
    from ensemble.predict.rows import read_sample, rows_to_predict
    from ensemble.predict.write_csv import OutputOptions, predict_to_csv

    # first, so that a failure of one machine ends the processes of all
    fabric = make_fabric(amp=config.amp)
    max_pixels()
    sample = None if config.sample_submission is None else read_sample(config.sample_submission)
    images = None if config.single else rows_to_predict(config, sample)
    ensemble = Ensemble.load(config.models, config.merge.classes)
    names = list(ensemble.class_names)
    output = config.output if config.single else config.output or Path("predictions.csv")
    if output is not None:
        _check_output(config, output, ensemble.paths, images)
    if sample is not None:
        sample.check_classes(names)
    columns = names if sample is None else sample.class_names
    id_column = "ImageID" if images is None else images.id_column
    if id_column in columns:
        raise UserError(f"a class is named {id_column}, as the column of names is: rename that")
    postprocess = postprocess_of(config.postprocessing, names)
    if fabric.is_global_zero:
        print(ensemble)
    predictor = Predictor(fabric, ensemble, config.merge, postprocess)
    if images is None:
        assert config.single is not None
        _predict_single(predictor, config.single, output)
        return
    assert output is not None
    options = OutputOptions(
        columns=columns,
        skip_unreadable=config.on_bad_image == "skip",
        anonymous=config.anonymous,
        overwrite=config.overwrite,
    )
    predict_to_csv(
        predictor,
        images,
        output,
        options,
        batch_size=config.batch_size,
        workers=worker_count(config.num_workers),
    )


def _predict_single(predictor: Predictor, image: Path, output: Path | None) -> None:
    """Print a line for each class, the most probable first; write them where `output` is given."""
    import pandas as pd

    from core.data.images.decode import read_image
    from core.io.atomic import make_folder, write_atomically

    found = pd.Series(predictor.finished(read_image(image)), index=predictor.class_names)
    if not predictor.fabric.is_global_zero:
        return
    print(f"\n{image}")
    for name, probability in found.sort_values(ascending=False, kind="stable").items():
        print(f"{probability:8.4f}  {name}")
    if output is not None:
        frame = found.to_frame().T
        frame.insert(0, "ImageID", image.name)
        make_folder(output.parent)
        write_atomically(output, lambda path: frame.to_csv(path, index=False, float_format="%.8g"))
        print(f"predictions  {output} (1 image)")


def _check_output(
    config: Config, output: Path, checkpoints: Sequence[Path], images: LabelTable | None
) -> None:
    """Raise UserError where the output, or its list of what is skipped, would replace something."""
    from core.data.images.pack_format import is_pack
    from core.io.atomic import check_writable
    from ensemble.predict.blocks import forget_delivered, parts_folder
    from ensemble.predict.write_csv import already_there, is_skipped_list, skipped_path

    read = [config.test_csv, config.sample_submission, config.postprocessing.calibration]
    read += [*checkpoints, config.models.ensemble, config.single]
    inputs = [path for path in read if path is not None]
    check_writable(output, inputs)
    if is_pack(output.parent):
        raise UserError(f"{output} lies in a pack of images: give another --output")
    skipped = skipped_path(output)
    if config.on_bad_image == "skip":
        check_writable(skipped, inputs)
        if skipped.exists() and not is_skipped_list(skipped):
            raise UserError(f"{skipped} would be replaced by a list of unreadable images: move it")
    if not output.exists():
        return
    if images is not None and any(map(output.samefile, filter(os.path.exists, images.paths))):
        raise UserError(f"{output} is an image that is read: give another --output")
    # with its parts beside it, it may be that of a run that was killed while it wrote
    if not config.overwrite and not parts_folder(output).exists():
        forget_delivered(output)
        raise UserError(already_there(output))


if __name__ == "__main__":
    run(main)
