"""Check this computer, the data, a run or checkpoints; what is wrong is told with what to do.

    python -m core.doctor
    python -m core.doctor --train_csv train.csv --train_dir images --full
    python -m core.doctor --run outputs/standard_head
    python -m core.doctor --method standard_head --preset paper

Takes the flags of a training that say what it reads, or its --config FILE.json. Exit code 0: all is
well, or can be meant so; 1: something is wrong; 2: a flag is.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from core.config.command_line import parse, run
from core.config.settings_file import as_arguments, read_settings
from core.config.training import flat
from core.doctor.above import method_names, presets_of
from core.doctor.config import Config, DataFlags
from core.errors import UserError

# of a training's settings; the others would ask for an estimate
_TAKEN = {*flat(DataFlags()), "folds", "seed", "num_workers", "out_dir", "test_csv", "test_dir"}


def main() -> None:
    """Look at what the flags name, print what was found, and exit."""
    config = parse({"auto": Config}, arguments=_arguments(sys.argv[1:]), description=__doc__)
    config.check()
    # late, so that --help and a mistyped flag are answered at once
    from core.doctor.checks import check_all

    sys.exit(check_all(config))


def _arguments(words: list[str]) -> list[str]:
    """The flags, before them those that --config FILE.json stands for."""
    scout = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # without a value it is left for tyro to refuse
    scout.add_argument("--config", nargs="?", type=Path)
    early, others = scout.parse_known_args(words)
    if early.config is None:
        return words
    settings = _settings(early.config)
    return as_arguments({name: settings[name] for name in settings if name in _TAKEN}) + others


def _settings(path: Path) -> dict[str, Any]:
    """The settings in a file, of whatever method. Raises UserError as `read_settings` does."""
    refusal = None
    for method in method_names():
        try:
            return read_settings(path, presets_of(method))
        except UserError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


if __name__ == "__main__":
    run(main)
