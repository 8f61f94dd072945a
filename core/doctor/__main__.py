"""Check this computer, the data, a run or checkpoints, and print a remedy for each problem.

    python -m core.doctor
    python -m core.doctor --train_csv train.csv --train_dir images --full
    python -m core.doctor --run outputs/standard_head

Takes the flags of a training for data and folds, or its --config FILE.json. Exit code 0: no
problem; 1: a problem; 2: an invalid flag.
"""

import sys

from core.config.command_line import parse, run
from core.config.training import SplitConfig
from core.doctor.config import Config, read_settings


def main() -> None:
    """Check what the flags name, print the findings, and exit."""
    sys.exit(check_all(parse({"doctor": Config}, description=__doc__, read=read_settings)))


def check_all(config: Config) -> int:
    """Run the checks that `config` selects; returns the exit code. Raises UserError."""
    # late imports: --help and a mistyped flag are answered at once
    from core.doctor import environment
    from core.doctor.findings import Findings

    loader, folds = environment.default_settings()
    split = SplitConfig(folds=folds if config.folds == "auto" else config.folds, seed=config.seed)
    find = Findings()
    find.heading("Environment")
    find.attempt(environment.check_packages)
    find.attempt(environment.check_accelerator)
    find.attempt(environment.check_threads)
    find.attempt(environment.check_shared_memory, loader, config.num_workers)
    find.attempt(environment.check_memory)
    find.attempt(environment.check_disk, config.out_dir)
    if config.data.train_csv:
        from core.doctor.images import check_images
        from core.doctor.tables import check_tables

        find.heading("Data")
        if tables := check_tables(find, config, split):
            find.attempt(check_images, tables, config)
    if config.run is not None:
        from core.doctor.runs import check_run

        find.heading("Run")
        check_run(find, config.run)
    if config.checkpoint:
        from core.doctor.checkpoints import check_checkpoint

        find.heading("Checkpoints")
        for path in config.checkpoint:
            find.attempt(check_checkpoint, path)
    return find.end()


if __name__ == "__main__":
    run(main)
