"""All checks in their order; each group is imported with what it needs when it is its turn."""

from core.config.training import SplitConfig
from core.doctor import environment
from core.doctor.config import Config
from core.doctor.findings import Findings


def check_all(config: Config) -> int:
    """Check all that `config` names; the exit code. Raises UserError for a wrong flag."""
    loader, folds = environment.usual_settings()
    split = SplitConfig(folds=folds if config.folds == "auto" else config.folds, seed=config.seed)
    find = Findings()
    find.heading("Environment")
    find.look("packages", environment.check_packages)
    find.look("accelerator", environment.check_accelerator)
    find.look("threads", environment.check_threads)
    find.look("shared memory", environment.check_shared_memory, loader, config.num_workers)
    find.look("memory", environment.check_memory)
    find.look("disk", environment.check_disk, config.out_dir)
    if config.data.train_csv:
        from core.doctor.images import check_images
        from core.doctor.tables import check_tables

        find.heading("Data")
        if (tables := check_tables(find, config, split)) is not None:
            find.look("images", check_images, tables, full=config.full, workers=config.num_workers)
    if config.run is not None:
        from core.doctor.runs import check_run

        find.heading("Run")
        check_run(find, config.run)
    if config.checkpoint:
        from core.doctor.checkpoints import check_checkpoint

        find.heading("Checkpoints")
        for path in config.checkpoint:
            find.look(str(path), check_checkpoint, path)
    return find.end()
