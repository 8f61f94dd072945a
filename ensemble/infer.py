"""Predict images: a CSV of probabilities, merged over augmented copies and models.

    python -m ensemble.infer --checkpoints a.safetensors b.safetensors --weights 1.0 1.5
      --test_csv test.csv --image_dir images --tta_config flip_scale --output submission.csv

On several devices: `fabric run ensemble/infer.py --devices 4 -- ...`. Rerun the same command to
resume a stopped run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from core.config.command_line import flags, run
from core.errors import UserError, list_first
from core.runtime.log import logger
from ensemble.predict.config import Config

if TYPE_CHECKING:  # imported late for a fast --help
    from ensemble.predict.predictor import Predictor


def main() -> None:
    """Run the command line."""
    config = flags(Config(), __doc__)
    config.check()
    # imported late for a fast --help
    from core.data.images.size_limit import max_pixels
    from core.runtime.fabric import make_fabric, worker_count
    from core.runtime.precision import advise_amp
    from ensemble.predict.calibration import make_postprocess, read_calibration
    from ensemble.predict.ensemble import Ensemble
    from ensemble.predict.predictor import Predictor
    from ensemble.predict.rows import read_sample, rows_to_predict
    from ensemble.predict.write_csv import OutputOptions, check_output, predict_to_csv

    # first, so that a failure of one machine ends the processes of all
    fabric = make_fabric(amp=config.amp)
    max_pixels()
    sample = None if config.sample_submission is None else read_sample(config.sample_submission)
    images = None if config.single else rows_to_predict(config, sample)
    ensemble = Ensemble.load(config.models, config.merge.classes)
    names = list(ensemble.class_names)
    if sample is not None:
        sample.check_classes(names)
    options = OutputOptions(
        columns=names if sample is None else sample.class_names,
        skip_unreadable=config.on_bad_image == "skip",
        anonymous=config.anonymous,
        overwrite=config.overwrite,
    )
    output = config.output if config.single else config.output or Path("outputs/predictions.csv")
    if output is not None:
        csvs = (config.test_csv, config.sample_submission, config.single)
        read = filter(None, (*csvs, config.postprocessing.calibration, config.models.ensemble))
        check_output(output, [*ensemble.paths, *read], images, options)
    id_column = "ImageID" if images is None else images.id_column
    if id_column in options.columns:
        raise UserError(f"the class {id_column} has the name of the image column: rename the class")
    postprocess = make_postprocess(config.postprocessing, names)
    if fabric.is_global_zero:
        logger.info(ensemble)
        advise_amp(fabric, config.amp)
        if config.postprocessing.calibration is None:
            logger.info(
                "calibration  none: --calibration FILE of ensemble.calibrate gives frequencies"
            )
        else:
            rare = set(read_calibration(config.postprocessing.calibration).too_rare)
            if found := [name for name in names if name in rare.difference(ensemble.unlearned)]:
                why = "with too few positive or negative patients"
                logger.info(f"Warning: not calibrated, {why}: {list_first(found)}.")
    predictor = Predictor(fabric, ensemble, config.merge, postprocess)
    if images is None or output is None:
        assert config.single is not None
        _predict_single(predictor, config.single, output)
        return
    workers = worker_count(config.num_workers)
    predict_to_csv(
        predictor, images, output, options, batch_size=config.batch_size, workers=workers
    )


def _predict_single(predictor: Predictor, image: Path, output: Path | None) -> None:
    """Predict one image and print a line a class, most probable first; write `output` if given."""
    import numpy as np
    import pandas as pd

    from core.data.images.decode import read_image
    from core.io.atomic import make_folder, write_atomically
    from ensemble.predict.dataset import digest_at
    from ensemble.predict.ensemble_json import write_document
    from ensemble.predict.training_overlap import KIND, as_document, find_overlap, overlap_path

    pixels, ensemble = read_image(image), predictor.ensemble
    found = pd.Series(predictor.predict_image(pixels), index=predictor.class_names)
    if not predictor.fabric.is_global_zero:
        return
    logger.info(f"\n{image}")
    for name, probability in found.sort_values(ascending=False, kind="stable").items():
        logger.info(f"{probability:8.4f}  {name}")
    sizes = ensemble.digest_sizes
    digests = np.array([[digest_at(size, pixels, {}) for size in sizes]], dtype=np.int64)
    overlap = find_overlap(ensemble.members, sizes, digests, np.zeros(1, np.int64))
    for sentence in overlap.sentences("image", "images"):
        logger.info(sentence)
    if output is not None:
        frame = found.to_frame().T
        frame.insert(0, "ImageID", image.name)
        make_folder(output.parent)
        write_atomically(output, lambda path: frame.to_csv(path, index=False, float_format="%.8g"))
        write_document(overlap_path(output), KIND, as_document(overlap, [image.name]))
        logger.info(f"predictions  {output} (1 image)")


if __name__ == "__main__":
    run(main)
