"""Label coupling: a linear head refined by learned couplings between the labels.

Run `python methods/label_coupling/train.py --train_csv train.csv --train_dir images
--test_dir test_images`, or on several devices `fabric run methods/label_coupling/train.py
--devices 4`.
"""

from core.config.command_line import machine_preset, parse, run
from core.models.weights import weights_settings
from methods.label_coupling.config import PRESETS


def main() -> None:
    """Read the command line, then train."""
    config = parse(
        PRESETS, auto=machine_preset, description=__doc__, public_weights=weights_settings
    )
    # imported late for a fast --help
    from methods.label_coupling.recipe import train

    train(config)


if __name__ == "__main__":
    run(main)
