"""All checks in their order.

What a group of checks needs is imported with it: who asks about the computer alone does not wait
for timm and matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.config.training import LoaderConfig, SplitConfig
from core.doctor import machine, packages
from core.doctor.above import presets_of
from core.doctor.config import Config
from core.doctor.findings import Findings
from core.runtime.fabric import preset_for_this_machine

if TYPE_CHECKING:
    from core.doctor.estimate import Data


def check_all(config: Config) -> int:
    """Look at all that `config` names; the exit code. Raises UserError for a wrong flag."""
    method = config.method or "standard_head"
    preset = preset_for_this_machine() if config.preset == "auto" else config.preset
    settings = config.training(presets_of(method)[preset])
    if config.model:
        from core.models.backbone import check_model_name

        check_model_name(config.model)
    find = Findings()
    _check_environment(find, config, settings.loader)
    data = _check_data(find, config, settings.split) if config.data.train_csv else None
    if config.run is not None:
        from core.doctor.runs import check_run

        find.heading("Run")
        check_run(find, config.run)
    if config.checkpoint:
        from core.doctor.checkpoints import check_checkpoint

        find.heading("Checkpoints")
        for path in config.checkpoint:
            find.look(str(path), check_checkpoint, path)
    if config.estimates:
        from core.doctor.estimate import check_estimate

        find.heading(f"Estimate for --method {method} --preset {preset}")
        check_estimate(find, method, settings, data, config.out_dir)
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


def _check_data(find: Findings, config: Config, split: SplitConfig) -> Data | None:
    from core.doctor.estimate import Data
    from core.doctor.images import check_pictures
    from core.doctor.tables import check_tables

    find.heading("Data")
    tables = check_tables(find, config, split)
    if tables is None:
        return None
    pictures = find.look(
        "images", check_pictures, tables, full=config.full, workers=config.num_workers
    )
    table = tables.train
    read = None
    if pictures is not None and pictures.seconds > 0:
        read = 1 / pictures.seconds
    return Data(len(table), len(table.class_names), read)
