"""`--dry_run`: a short trial of the whole command on a few images."""

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
from core.training.measurement import Measurement, Plan

# updates of each epoch, and batches of images to predict
UPDATES = 2


def reduce_to_dry_run(
    config: Any, prepared: PreparedData, fabric: Fabric, log: Callable[[str], None]
) -> tuple[Any, PreparedData, Measurement]:
    """Reduce a run to `UPDATES` updates of each phase of the first fold and as many validation
    images; returns `config`, `prepared` and the measurement of the run.

    A head phase that reads cached features has a second epoch, which reads them.

    Networks, image and batch sizes are unchanged, so that a lack of memory shows. Raises UserError
    if the dry-run folder holds another run, or if the fold cannot be trained on.
    """
    out_dir = _dry_run_folder(config.run.out_dir)
    augment = Augmentation([], config.split.seed)
    fold, training, validation = next(prepared.rows())
    options = (config.loader, config.optim.accumulate, augment)
    full = FoldData(fabric, fold, prepared.table, training, validation, *options)
    images = UPDATES * full.images_per_update
    plan = Plan.of(config.optim, len(prepared.run_folds))
    optim: dict[str, Any] = plan.reduced(config.optim)
    optim["warmup_epochs"] = min(1, config.optim.warmup_epochs, optim["epochs"])
    changes = {
        "run": replace(config.run, out_dir=out_dir, overwrite=True),
        "loader": replace(config.loader, epoch_size=images),
        "optim": replace(config.optim, **optim),
        "loop": replace(config.loop, log_every=1, patience=None),
    }
    if config.loss.drw_epoch is not None:
        changes["loss"] = replace(config.loss, drw_epoch=1)
    if "test" in {field.name for field in fields(config)}:
        changes["test"] = replace(config.test, out_csv=out_dir / config.test.out_csv.name)
    seed, both = config.split.seed, (training, validation)
    chosen = [_choose_rows(prepared.table, rows, images, seed) for rows in both]
    rows = np.sort(np.concatenate(chosen))
    table, assignment = prepared.table.take(rows), prepared.assignment[rows]
    log(
        f"Dry run: fold {fold}, {UPDATES} updates of each phase, {len(table):,} of "
        f"{len(prepared.table):,} images, all into {out_dir}."
    )
    measured = Measurement(
        plan=plan,
        updates=full.updates_per_epoch,
        images=len(full.val_rows),
        device=fabric.device,
        workers=worker_count(config.loader.num_workers),
        ranks=fabric.world_size,
    )
    reduced = PreparedData(table, assignment, (fold,), prepared.files)
    return replace(config, **changes), reduced, measured


def _dry_run_folder(out_dir: Path) -> Path:
    """The folder OUT_DIR_dry_run. Raises UserError if it holds another run."""
    # "." and ".." have no name to extend
    named = out_dir if out_dir.name not in ("", "..") else out_dir.resolve()
    if not named.name:
        raise UserError(
            f"--dry_run writes to a folder beside --out_dir, and {out_dir} has none: give another "
            "--out_dir"
        )
    folder = named.with_name(f"{named.name}_dry_run")
    record = folder / "config.json"
    try:
        # `RunFolder` refuses a folder that holds other files
        is_dry = not record.exists() or read_json(record).get("dry_run") is True
    except (OSError, ValueError):
        is_dry = False
    if not is_dry:
        raise UserError(
            f"{folder}, the folder of --dry_run, holds a run that is not a dry run: give another "
            "--out_dir, or move it away"
        )
    return folder


def _choose_rows(table: LabelTable, rows: np.ndarray, images: int, seed: int) -> np.ndarray:
    """`images` of the `rows`, or more: at least one positive of each class in each source."""
    order = np.random.default_rng(seed).permutation(rows)
    sources = np.zeros(len(table), dtype=int) if table.sources is None else table.sources
    positive = table.binary_targets == 1
    needed = [
        of_source[positive[of_source, column]][:1]
        for of_source in (order[sources[order] == source] for source in np.unique(sources[order]))
        for column in range(table.targets.shape[1])
    ]
    first = np.unique(np.concatenate(needed))
    return np.concatenate([first, np.setdiff1d(order, first, assume_unique=True)[:images]])[
        : max(images, len(first))
    ]
