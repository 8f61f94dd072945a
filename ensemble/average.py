"""Average the weights of several checkpoints of one network into one checkpoint.

    python -m ensemble.average --checkpoints a.safetensors b.safetensors c.safetensors
      --train_csv train.csv --image_dir images --way greedy --output soup.safetensors

Model soups (Wortsman 2022): trainings from the same start are averaged, from random starts rarely.
Batch-norm statistics are computed again on training images. Scores are of images of --train_csv
that no checkpoint was trained on: give checkpoints of the same fold. The output predicts as any
other checkpoint, in the time of one model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from core.config.command_line import flags, run
from core.errors import UserError, pluralize
from core.runtime.log import logger
from ensemble.averaging.config import Config

if TYPE_CHECKING:  # imported late for a fast --help
    from collections.abc import Sequence

    from lightning_fabric import Fabric

    from ensemble.averaging.images import ImageReader, UnseenImages
    from ensemble.averaging.soup import HeldOut, Soup, Step
    from ensemble.predict.ensemble import Ensemble


def main() -> None:
    """Run the command line."""
    config = flags(Config(), __doc__)
    config.check()
    # imported late for a fast --help
    from core.data.images.size_limit import max_pixels
    from core.runtime.fabric import make_fabric
    from ensemble.averaging.record import check_output, write_average
    from ensemble.averaging.weights import batch_norms, check_same
    from ensemble.predict.config import ModelsConfig
    from ensemble.predict.ensemble import Ensemble

    max_pixels()
    fabric = make_fabric(amp=config.amp)
    if fabric.world_size > 1:
        raise UserError("weights are averaged in one process only: start the command by python")
    ensemble = Ensemble.load(ModelsConfig(checkpoints=config.checkpoints), "union")
    members = ensemble.members
    if len(members) < 2:
        raise UserError("only one checkpoint is given beside resume states: give several")
    check_same(members)
    read = filter(None, (config.train_csv, config.reading.label_map))
    check_output(config.output, [*ensemble.paths, *read], overwrite=config.overwrite)
    needs_images = bool(batch_norms(members[0].model))
    if needs_images and config.train_csv is None:
        raise UserError(
            "the network has batch norm, which needs training images: give the CSV of the training "
            "by --train_csv, and its images by --image_dir"
        )
    if config.way == "uniform":
        logger.info(ensemble)
    images = _find_images(config, ensemble) if config.train_csv is not None else None
    held_out = _held_out(config, *images) if images else None
    soup = _make_soup(config, fabric, ensemble, images if needs_images else None)
    chosen, record = _choose(config, [*map(str, ensemble.paths)], soup, held_out)
    soup.load(chosen)
    kept = [members[place] for place in chosen]
    chosen_on = images[1].digests if images and config.way == "greedy" else ()
    write_average(config.output, soup.model.state_dict(), kept, record, chosen_on)
    of = "" if len(kept) == len(members) else f" of {len(members)}"
    note = ""
    if soup.images is not None and len(kept) > 1:
        note = f", batch norm of {pluralize(len(soup.images), 'image')}"
    logger.info(f"average      {config.output} ({config.way}, {len(kept)}{of} models{note})")


def _find_images(config: Config, ensemble: Ensemble) -> tuple[ImageReader, UnseenImages]:
    """The table of --train_csv, and its images that no checkpoint was trained on."""
    from core.data.tables.load import read_table
    from core.runtime.fabric import worker_count
    from ensemble.averaging.images import ImageReader, find_unseen

    assert config.train_csv is not None
    table = read_table(
        config.train_csv, config.image_dir, ensemble.class_names, reading=config.reading
    )
    for note in (*table.notes, *table.images.check_sizes(ensemble.sizes)):
        logger.info(note)
    workers = worker_count(config.num_workers)
    reader = ImageReader(table, ensemble.sizes[0], config.batch_size, workers)
    return reader, find_unseen(ensemble, reader)


def _held_out(config: Config, reader: ImageReader, unseen: UnseenImages) -> HeldOut | None:
    """Held-out images with labels, and their score; None if there are none.

    Raises UserError in that case for --way greedy.
    """
    import numpy as np

    from ensemble.averaging.soup import HeldOut
    from ensemble.fitting.weights import Scorer

    targets = reader.table.targets
    rows = np.flatnonzero(unseen.mask & ~np.isnan(targets).all(axis=1))
    scorer = Scorer(targets[rows].T, config.monitor)
    reason = ""
    if not len(rows):
        reason = f"{config.train_csv} has no labelled image that is known to be in no training"
    elif np.isnan(scorer(np.zeros((targets.shape[1], len(rows))))):
        reason = f"no class has both labels among the {len(rows):,} held-out images"
    if not reason:
        return HeldOut(reader, rows, scorer)
    if config.way == "greedy":
        raise UserError(
            f"{reason}: give checkpoints of the same fold, or choose --way uniform, which needs no "
            "scores"
        )
    logger.info(f"not scored   {reason}")
    return None


def _make_soup(
    config: Config,
    fabric: Fabric,
    ensemble: Ensemble,
    images: tuple[ImageReader, UnseenImages] | None,
) -> Soup:
    """The averages of the members; with `images`, those for batch norm are read."""
    import numpy as np

    from ensemble.averaging.soup import Soup
    from ensemble.predict.config import MergeConfig
    from ensemble.predict.ensemble import Ensemble
    from ensemble.predict.predictor import Predictor

    states = [member.model.state_dict() for member in ensemble.members]
    # the first model takes the averages
    states[0] = {name: tensor.clone() for name, tensor in states[0].items()}
    single = Ensemble(ensemble.members[:1], np.ones(1), ensemble.class_names)
    drawn = None
    if images is not None:
        reader, unseen = images
        rows = np.flatnonzero(~unseen.mask)
        if len(rows) < 2:
            raise UserError(
                f"{config.train_csv} has {pluralize(len(rows), 'image')} of the checkpoints' "
                "training, but batch norm needs two or more: give the CSV of the training"
            )
        drawn = reader.draw(rows, config.bn_images, config.seed)
    return Soup(Predictor(fabric, single, MergeConfig()), states, drawn, config.batch_size)


def _choose(
    config: Config, names: Sequence[str], soup: Soup, held_out: HeldOut | None
) -> tuple[list[int], dict[str, Any]]:
    """Choose members and print scores; returns their places and a record of the choice."""
    from ensemble.averaging.soup import greedy

    every = list(range(len(soup.states)))
    record: dict[str, Any] = {"way": config.way}
    if soup.images is not None:
        record["batch_norm_images"] = len(soup.images)
    if held_out is None:
        return every, record
    of = pluralize(len(held_out.rows), "held-out image")
    logger.info(f"\n{config.monitor} on {of}, which no checkpoint was trained on")

    def show(score: float, text: str) -> None:
        logger.info(f"{score:8.4f}  {text}")

    def score(chosen: Sequence[int], title: str) -> float:
        return soup.score(chosen, held_out, title)

    alone = []
    for place, name in enumerate(names):
        alone.append(score([place], f"scoring {place + 1} of {len(names)}"))
        show(alone[-1], name)
    if config.way == "uniform":
        chosen, best = every, score(every, "scoring the average")
    else:

        def show_step(step: Step) -> None:
            verdict = "kept" if step.is_kept else "left out"
            show(step.score, f"with {names[step.member]}: {verdict}")

        chosen, best = greedy(alone, lambda some: score(some, "scoring an average"), show_step)
    show(best, f"average of {len(chosen)} ({best - max(alone):+.4f} against the best one alone)")
    record |= {"monitor": config.monitor, "held_out_images": len(held_out.rows), "score": best}
    return chosen, record


if __name__ == "__main__":
    run(main)
