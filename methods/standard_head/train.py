"""Standard head: pooled features, a two-layer head, asymmetric loss with logit adjustment.

Run `python methods/standard_head/train.py --train_csv train.csv --train_dir images`, or on several
devices `fabric run methods/standard_head/train.py --devices 4`.
"""

from core.config.command_line import machine_preset, parse, run
from core.models.weights import weights_settings
from methods.standard_head.config import PRESETS


def main() -> None:
    """Read the command line, then train."""
    config = parse(
        PRESETS, auto=machine_preset, description=__doc__, public_weights=weights_settings
    )
    # imported late for a fast --help
    from methods.standard_head.recipe import train

    train(config)


if __name__ == "__main__":
    run(main)
