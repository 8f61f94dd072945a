"""Class-specific residual attention, Distribution-Balanced loss, class-aware sampling.

Run `python methods/csra_db_cas/train.py --train_csv train.csv --train_dir images`, or on several
devices `fabric run methods/csra_db_cas/train.py --devices 4`.
"""

from core.config.command_line import machine_preset, parse, run
from core.models.weights import weights_settings
from methods.csra_db_cas.config import PRESETS


def main() -> None:
    """Read the command line, then train."""
    config = parse(
        PRESETS, auto=machine_preset, description=__doc__, public_weights=weights_settings
    )
    # imported late for a fast --help
    from methods.csra_db_cas.recipe import train

    train(config)


if __name__ == "__main__":
    run(main)
