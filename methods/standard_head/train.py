"""Standard head: pooled features, a two-layer head, asymmetric loss with logit adjustment.

Start it as `python methods/standard_head/train.py --train_csv train.csv --train_dir images`, or on
many devices as `fabric run methods/standard_head/train.py --devices 4`.
"""

from core.config.command_line import machine_preset, parse, run
from methods.standard_head.config import PRESETS


def main() -> None:
    """Read the command line, then train."""
    config = parse(PRESETS, auto=machine_preset, description=__doc__)
    # late, so that --help and a mistyped flag are answered at once
    from methods.standard_head.recipe import train

    train(config)


if __name__ == "__main__":
    run(main)
