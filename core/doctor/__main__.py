"""Check this computer, the data, a run or checkpoints, and say what to do about what is wrong.

    python -m core.doctor
    python -m core.doctor --train_csv train.csv --train_dir images --full
    python -m core.doctor --run outputs/standard_head

Takes a training's flags of data and folds, or its --config FILE.json. Exit code 0: nothing is
wrong; 1: something is; 2: a flag is.
"""

import sys

from core.config.command_line import parse, run
from core.doctor.config import Config, read_settings, refuse_removed


def main() -> None:
    """Check what the flags name, print the findings, and exit."""
    refuse_removed(sys.argv[1:])
    config = parse({"doctor": Config}, description=__doc__, read=read_settings)
    # late, so that --help and a mistyped flag are answered at once
    from core.doctor.checks import check_all

    sys.exit(check_all(config))


if __name__ == "__main__":
    run(main)
