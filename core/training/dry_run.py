"""`--dry_run`: all that a command will do, in a minute, on a few of its images."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric

from core.data.loading.augmentation import Augmentation
from core.data.loading.fold_data import FoldData
from core.data.splits.prepare import PreparedData
from core.data.tables.label_table import LabelTable
from core.errors import UserError
from core.io.untrusted_files import read_json
from core.runtime.fabric import worker_count
from core.training.measurement import Measurement

# of each phase, in the one epoch that it then has; and batches of images to predict
UPDATES = 2


def for_dry_run(
    config: Any, prepared: PreparedData, fabric: Fabric, say: Callable[[str], None]
) -> tuple[Any, PreparedData, Measurement]:
    """`config` and `prepared`, cut down to `UPDATES` updates of each phase of the first fold and as
    many validation images; and what measures the epochs of the whole fold.

    Networks, sizes and batches stay: what does not fit into memory is found. Raises UserError where
    the folder beside --out_dir holds something else, and where the fold cannot be trained on.
    """
    out_dir = _folder_beside(config.run.out_dir)
    augment = Augmentation([], config.split.seed)
    fold, training, validation = next(prepared.rows())
    how = (config.loader, config.optim.accumulate, augment)
    whole = FoldData(fabric, fold, prepared.table, training, validation, *how)
    images = UPDATES * whole.images_per_update
    optim = {
        name: min(1, getattr(config.optim, name))
        for name in ("epochs", "warmup_epochs", "warmup_head_epochs")
        if hasattr(config.optim, name)
    }
    parts = {
        "run": replace(config.run, out_dir=out_dir, overwrite=True),
        "loader": replace(config.loader, epoch_size=images),
        "optim": replace(config.optim, **optim),
        "loop": replace(config.loop, log_every=1, patience=None),
    }
    if config.loss.drw_epoch is not None:
        parts["loss"] = replace(config.loss, drw_epoch=1)
    if "test" in {field.name for field in fields(config)}:
        parts["test"] = replace(config.test, out_csv=out_dir / config.test.out_csv.name)
    seed, both = config.split.seed, (training, validation)
    chosen = [_chosen(prepared.table, rows, images, seed) for rows in both]
    kept = np.sort(np.concatenate(chosen))
    table, assignment = prepared.table.take(kept), prepared.assignment[kept]
    say(
        f"Dry run: fold {fold}, {UPDATES} updates of each phase, {len(table):,} of "
        f"{len(prepared.table):,} images, all into {out_dir}."
    )
    measured = Measurement(
        updates=whole.updates_per_epoch,
        images=len(whole.val_rows),
        device=fabric.device,
        workers=worker_count(config.loader.num_workers),
        ranks=fabric.world_size,
    )
    few = PreparedData(table, assignment, (fold,), prepared.files)
    return replace(config, **parts), few, measured


def _folder_beside(out_dir: Path) -> Path:
    # "." and ".." have no name to add to
    named = out_dir if out_dir.name not in ("", "..") else out_dir.resolve()
    if not named.name:
        raise UserError(f"--dry_run writes beside --out_dir, and {out_dir} has no place beside it")
    folder = named.with_name(f"{named.name}_dry_run")
    record = folder / "config.json"
    try:
        # what is no run's folder is refused as for any run
        is_dry = not record.exists() or read_json(record).get("dry_run") is True
    except (OSError, ValueError):
        is_dry = False
    if not is_dry:
        raise UserError(
            f"{folder}, where --dry_run would write, holds a run that is none: give another "
            "--out_dir, or move it away"
        )
    return folder


def _chosen(table: LabelTable, rows: np.ndarray, images: int, seed: int) -> np.ndarray:
    """`images` of the `rows`, or a few more: a positive of each class in each source is there."""
    order = np.random.default_rng(seed).permutation(rows)
    sources = np.zeros(len(table), dtype=int) if table.sources is None else table.sources
    needed = [
        of_source[table.targets[of_source, column] == 1][:1]
        for of_source in (order[sources[order] == source] for source in np.unique(sources[order]))
        for column in range(table.targets.shape[1])
    ]
    first = np.unique(np.concatenate(needed))
    return np.concatenate([first, np.setdiff1d(order, first, assume_unique=True)[:images]])[
        : max(images, len(first))
    ]
