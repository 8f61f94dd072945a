"""Check this computer, the data, a run or checkpoints; what is wrong is told with what to do.

    python -m core.doctor
    python -m core.doctor --train_csv train.csv --train_dir images --full
    python -m core.doctor --run outputs/standard_head

Takes the flags of a training that say what it reads, or its --config FILE.json. Exit code 0: all is
well, or can be meant so; 1: something is wrong; 2: a flag is.
"""

import sys

from core.config.command_line import parse, run
from core.doctor.config import Config, read_settings, refuse_removed


def main() -> None:
    """Look at what the flags name, print what was found, and exit."""
    refuse_removed(sys.argv[1:])
    config = parse({"doctor": Config}, description=__doc__, read=read_settings)
    # late, so that --help and a mistyped flag are answered at once
    from core.doctor.checks import check_all

    sys.exit(check_all(config))


if __name__ == "__main__":
    run(main)
