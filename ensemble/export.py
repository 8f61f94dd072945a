"""Export checkpoints as an ONNX file or a hub folder, with a model card.

    python -m ensemble.export --checkpoints a.safetensors b.safetensors --weights 1.0 1.5
      --tta_config flip --calibration outputs/calibration.json --image_dir images
    python -m ensemble.export --checkpoints a.safetensors --format folder --output outputs/hub

onnx: images to probabilities, equal to `python -m ensemble.infer` with the same flags, checked by
ONNX Runtime on noise and on --image_dir. folder: weights and settings for `methods.load_model` and
`ensemble.infer`, without the network. Neither has names of images or patients.
"""

from __future__ import annotations

import re
from functools import partial

from core.config.command_line import flags, run
from core.errors import format_size, pluralize
from core.runtime.log import logger
from ensemble.exporting.config import Config

# files of this command; --overwrite replaces no others
_OURS = re.compile(
    r"model(_\d+)?\.(onnx|safetensors)|(config|ensemble|calibration)\.json|README\.md|MODEL_CARD\.md"
)


def main() -> None:
    """Run the command line."""
    config = flags(Config(), __doc__)
    config.check()
    # imported late for a fast --help
    from core.io.output_folder import check_folder, write_folder
    from ensemble.exporting.card_scores import score_members
    from ensemble.exporting.export import GRAPH, Export
    from ensemble.exporting.graph import common_size
    from ensemble.exporting.onnx import check_installed
    from ensemble.predict.calibration import read_calibration
    from ensemble.predict.ensemble import Ensemble

    graph = config.format == "onnx"
    if graph:
        check_installed()
    calibration = None if config.calibration is None else read_calibration(config.calibration)
    ensemble = Ensemble.load(config.models, config.merge.classes)
    read = filter(None, (config.models.ensemble, config.calibration, config.test_csv))
    inputs, overwrite = [*ensemble.paths, *read], config.overwrite
    check = partial(check_folder, config.output, inputs, _OURS, "model", overwrite=overwrite)
    check()
    if graph:
        common_size(ensemble)
    if calibration is not None:
        calibration.check_known(ensemble.class_names)
    logger.info(ensemble)
    members = ensemble.members
    scores = score_members(members) if config.scores else [None] * len(members)
    export = Export(config=config, ensemble=ensemble, calibration=calibration, scores=scores)
    checked = write_folder(config.output, export.write, check)
    models = pluralize(len(members), "model")
    if not graph:
        logger.info(f"model        {config.output} ({models}; reads back to the same bits)")
        logger.info(f"card         {config.output / 'README.md'}")
        return
    path = config.output / GRAPH
    state = "calibrated" if export.calibrated else "not calibrated"
    if calibration is not None and not export.calibrated:
        state += ": an isotonic map is too steep for float32; the calibration is in the metadata"
    logger.info(f"checked      ONNX Runtime against PyTorch, at most {checked}")
    size = format_size(path.stat().st_size)
    logger.info(f"model        {path} ({size}, {models}, copies: {config.merge.tta}, {state})")
    logger.info(f"card         {config.output / 'MODEL_CARD.md'}")


if __name__ == "__main__":
    run(main)
