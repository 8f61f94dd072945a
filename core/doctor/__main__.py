"""Check this computer, the data, a run or checkpoints, and say what to do about what is wrong.

    python -m core.doctor
    python -m core.doctor --train_csv train.csv --train_dir images --full
    python -m core.doctor --run outputs/standard_head

Takes a training's flags of data and folds, or its --config FILE.json. Exit code 0: nothing is
wrong; 1: something is; 2: a flag is.
"""

import sys

from core.config.command_line import parse, run
from core.config.training import SplitConfig
from core.doctor.config import Config, read_settings


def main() -> None:
    """Check what the flags name, print the findings, and exit."""
    sys.exit(check_all(parse({"doctor": Config}, description=__doc__, read=read_settings)))


def check_all(config: Config) -> int:
    """Check all that `config` names; the exit code. Raises UserError for a wrong flag."""
    # each group is imported when it is its turn: --help and a mistyped flag are answered at once
    from core.doctor import environment
    from core.doctor.findings import Findings

    loader, folds = environment.usual_settings()
    split = SplitConfig(folds=folds if config.folds == "auto" else config.folds, seed=config.seed)
    find = Findings()
    find.heading("Environment")
    find.look(environment.check_packages)
    find.look(environment.check_accelerator)
    find.look(environment.check_threads)
    find.look(environment.check_shared_memory, loader, config.num_workers)
    find.look(environment.check_memory)
    find.look(environment.check_disk, config.out_dir)
    if config.data.train_csv:
        from core.doctor.images import check_images
        from core.doctor.tables import check_tables

        find.heading("Data")
        if tables := check_tables(find, config, split):
            find.look(check_images, tables, config)
    if config.run is not None:
        from core.doctor.runs import check_run

        find.heading("Run")
        check_run(find, config.run)
    if config.checkpoint:
        from core.doctor.checkpoints import check_checkpoint

        find.heading("Checkpoints")
        for path in config.checkpoint:
            find.look(check_checkpoint, path)
    return find.end()


if __name__ == "__main__":
    run(main)
