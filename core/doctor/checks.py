"""All checks in their order.

What a group of checks needs is imported with it: who asks about the computer alone does not wait
for timm and matplotlib.
"""

from core.config.training import LoaderConfig, SplitConfig
from core.doctor import machine, packages
from core.doctor.config import Config
from core.doctor.findings import Findings


def check_all(config: Config) -> int:
    """Look at all that `config` names; the exit code. Raises UserError for a wrong flag."""
    loader, folds = machine.usual_settings()
    split = SplitConfig(folds=folds if config.folds == "auto" else config.folds, seed=config.seed)
    find = Findings()
    _check_environment(find, config, loader)
    if config.data.train_csv:
        _check_data(find, config, split)
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


def _check_environment(find: Findings, config: Config, loader: LoaderConfig) -> None:
    find.heading("Environment")
    wanted = find.look("Python", lambda _: packages.read_wanted())
    if wanted is not None:
        find.look("Python", packages.check_python, wanted)
        find.look("packages", packages.check_packages, wanted)
    find.look("accelerator", machine.check_accelerator)
    find.look("threads", machine.check_threads)
    find.look("shared memory", machine.check_shared_memory, loader, config.num_workers)
    find.look("memory", machine.check_memory)
    find.look("disk", machine.check_disk, config.out_dir)
    if wanted is not None:
        find.look("extras", packages.check_extras, wanted)


def _check_data(find: Findings, config: Config, split: SplitConfig) -> None:
    from core.doctor.images import check_pictures
    from core.doctor.tables import check_tables

    find.heading("Data")
    tables = check_tables(find, config, split)
    if tables is not None:
        find.look("images", check_pictures, tables, full=config.full, workers=config.num_workers)
