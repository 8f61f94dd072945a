"""Predict images block by block, and write one CSV of merged and postprocessed probabilities."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.data.images.pack_format import is_pack
from core.data.loading.dataset import decoding_loader
from core.data.tables.images_to_predict import view_groups
from core.data.tables.label_table import LabelTable
from core.errors import UserError, list_first, pluralize
from core.io.atomic import check_writable
from core.runtime.log import logger
from core.runtime.progress_bar import ProgressBar
from ensemble.predict.blocks import Block, PredictionBlocks, blocks_folder, delete_finished_blocks
from ensemble.predict.dataset import ImagesAtSizes, collate
from ensemble.predict.ensemble_json import fill_document
from ensemble.predict.merge import Probabilities, merge_studies
from ensemble.predict.predictor import Predictor
from ensemble.predict.training_overlap import (
    KIND,
    as_document,
    find_overlap,
    is_overlap,
    overlap_path,
)

_EXISTS = "{} exists: give another --output, or --overwrite to replace it"
_HEADERS = ("ImageID,reason", "ImageID,StudyID,reason")


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Settings of the written CSV."""

    columns: Sequence[str] = ()  # classes to write, in this order; all unless given
    skip_unreadable: bool = False  # list images that cannot be read; else they are an error
    anonymous: bool = False  # list them without the reasons, which name their files
    overwrite: bool = False


def check_output(
    output: Path, inputs: Sequence[Path], images: LabelTable | None, options: OutputOptions
) -> None:
    """Raise UserError if `output`, or a file beside it, would replace another file."""
    check_writable(output, inputs)
    if is_pack(output.parent):
        raise UserError(f"--output {output} is inside a pack of images: give another --output")
    skipped = _skipped_path(output)
    if options.skip_unreadable:
        check_writable(skipped, inputs)
        if skipped.exists() and not _is_skipped_list(skipped):
            raise UserError(
                f"the list of unreadable images would replace {skipped}: move that file"
            )
    overlap = overlap_path(output)
    check_writable(overlap, inputs)
    if overlap.exists() and not is_overlap(overlap):
        raise UserError(f"the list of training images would replace {overlap}: move that file")
    if not output.exists():
        return
    if images is not None and any(map(output.samefile, filter(os.path.exists, images.paths))):
        raise UserError(f"--output would overwrite the input image {output}")
    # with blocks beside it, the output may be of a run that was killed while writing it
    if not options.overwrite and not blocks_folder(output).exists():
        delete_finished_blocks(output)
        raise UserError(_EXISTS.format(output))


def predict_to_csv(
    predictor: Predictor,
    images: LabelTable,
    output: Path,
    options: OutputOptions,
    *,
    batch_size: int,
    workers: int,
) -> None:
    """Predict `images` with all processes, write one CSV, whole or not at all, and print its path.

    batch_size: images in a batch; workers: decoding processes, both per process. Until then the
    predicted blocks are beside `output`; a rerun resumes from them. Raises
    UserError if an image is unreadable, a pack is too small, a probability is not finite, the
    disk is full, or `output` exists (unless overwritten).
    """
    fabric = predictor.fabric
    for sentence in images.images.check_sizes(predictor.ensemble.sizes):
        logger.info(sentence)
    with PredictionBlocks(output, images.images, predictor.identity, batch_size) as blocks:
        missing: list[int] = []
        if fabric.is_global_zero:
            missing = blocks.open()
            # after a kill while the output was written, no block is missing
            if missing and output.exists() and not options.overwrite:
                raise UserError(_EXISTS.format(output))
            if others := blocks.clean():
                old = pluralize(others, "old block")
                logger.info(f"Deleted {old} of other images, models, copies or batches.")
            if len(missing) < len(blocks):
                done = len(blocks) - len(missing)
                logger.info(f"Resuming: {done:,} of {len(blocks):,} blocks are done.")
        missing = fabric.broadcast(missing)
        try:
            _predict_blocks(predictor, blocks, missing, workers)
        except (KeyboardInterrupt, SystemExit):
            logger.info("\nStopped: rerun the same command to resume.")
            raise
        if fabric.is_global_zero:
            rows = _write_predictions(blocks, images, predictor, options)
            by = pluralize(len(predictor.ensemble.members), "model")
            logger.info(f"predictions  {output} ({rows} by {by}, copies: {predictor.merge.tta})")


def _predict_blocks(
    predictor: Predictor, blocks: PredictionBlocks, missing: Sequence[int], workers: int
) -> None:
    fabric = predictor.fabric
    mine = missing[fabric.global_rank :: fabric.world_size]
    batches = blocks.batches(mine)
    sizes, digest_sizes = predictor.ensemble.sizes, predictor.ensemble.digest_sizes
    images = ImagesAtSizes(blocks.images, sizes, digest_sizes)
    workers, pin = min(workers, len(batches)), fabric.device.type == "cuda"
    stream = iter(decoding_loader(images, batches, workers, collate=collate, pin_memory=pin))
    several = f" (process 1 of {fabric.world_size})" if fabric.world_size > 1 else ""
    total, silent = sum(map(len, batches)), None if fabric.is_global_zero else True
    with ProgressBar(desc=f"predicting{several}", total=total, unit="img", disable=silent) as bar:
        models, classes = len(predictor.ensemble.members), len(predictor.class_names)
        for number in mine:
            found = [np.empty((models, 0, classes), np.float32)]
            digests = [np.empty((0, len(digest_sizes)), np.int64)]
            positions: list[int] = []
            unreadable: list[tuple[int, str]] = []
            for batch in islice(stream, len(blocks.batches([number]))):
                if batch.positions:
                    found.append(predictor(batch.images))
                    digests.append(batch.digests)
                positions += batch.positions
                unreadable += batch.unreadable
                bar.update(len(batch.positions) + len(batch.unreadable))
            block = Block(
                np.array(positions, np.int64),
                np.concatenate(found, axis=1),
                unreadable,
                np.concatenate(digests),
            )
            blocks.write(number, block)
    fabric.barrier()


def _write_predictions(
    blocks: PredictionBlocks, images: LabelTable, predictor: Predictor, options: OutputOptions
) -> str:
    """Merge the blocks into one CSV and delete them; returns the number of rows in words.

    Raises UserError if an image is unreadable (unless skipped) or all are.
    """
    unreadable = blocks.unreadable()
    if unreadable:
        _check_unreadable(unreadable, images, skip=options.skip_unreadable)
    columns = list(options.columns or predictor.class_names)
    rows = 0

    def fill(path: Path) -> None:
        nonlocal rows
        with path.open("w", encoding="utf-8", newline="") as file:
            for names, probabilities in _merged(blocks, images, predictor):
                frame = pd.DataFrame(probabilities, columns=predictor.class_names)[columns]
                frame.insert(0, images.id_column, names)
                frame.to_csv(file, index=False, header=rows == 0, float_format="%.8g")
                rows += len(frame)

    # before the output, so that after a kill in between a rerun writes all three
    _list_unreadable(unreadable, images, blocks, anonymous=options.anonymous)
    _write_overlap(blocks, images, predictor, anonymous=options.anonymous)
    blocks.finish(fill)
    if unreadable:
        logger.info(f"left out     {len(unreadable):,} unreadable: {_skipped_path(blocks.output)}")
    if images.studies is None:
        return pluralize(rows, "image")
    readable = pluralize(len(images) - len(unreadable), "image")
    return f"{pluralize(rows, 'study', 'studies')} of {readable}"


def _merged(
    blocks: PredictionBlocks, images: LabelTable, predictor: Predictor
) -> Iterator[tuple[list[str], Probabilities]]:
    """Names and probabilities (N, C) of images or studies, in the order of the images.

    One block at a time; studies and ranks need all images at once.
    """
    read = (block for block in map(blocks.read, range(len(blocks))) if len(block.positions))
    pairs: Iterable[tuple[NDArray[np.int64], Probabilities]] = (
        (block.positions, block.probabilities.astype(np.float64)) for block in read
    )
    if images.studies is not None or predictor.merge.ensemble_mode == "rank_mean":
        places, found = zip(*pairs, strict=True)
        pairs = [(np.concatenate(places), np.concatenate(found, axis=1))]
    for positions, probabilities in pairs:
        merged = predictor.merge_models(probabilities)
        names = [images.ids[position] for position in positions]
        if images.studies is not None:
            codes, studies = pd.factorize(images.studies[positions])
            groups = view_groups(images.views, len(images))[positions]
            merged, names = merge_studies(merged, codes, groups), studies.tolist()
        yield names, predictor.postprocess(merged)


def _write_overlap(
    blocks: PredictionBlocks, images: LabelTable, predictor: Predictor, *, anonymous: bool
) -> None:
    """Print and write which rows are among a checkpoint's training or validation images."""
    ensemble = predictor.ensemble
    pairs = [(block.positions, block.digests) for block in map(blocks.read, range(len(blocks)))]
    positions, digests = map(np.concatenate, zip(*pairs, strict=True))
    read = images.take(positions)
    row_of, names = np.arange(len(read)), read.ids
    if read.studies is not None:
        row_of, studies = pd.factorize(read.studies)
        names = studies.tolist()
    members, sizes = ensemble.members, ensemble.digest_sizes
    overlap = find_overlap(members, sizes, digests, row_of, read, anonymous=anonymous)
    path = overlap_path(blocks.output)
    blocks.write_file(path, lambda draft: fill_document(draft, KIND, as_document(overlap, names)))
    unit = ("image", "images") if read.studies is None else ("study", "studies")
    for sentence in overlap.sentences(*unit):
        logger.info(sentence)


def _check_unreadable(
    unreadable: Sequence[tuple[int, str]], images: LabelTable, *, skip: bool
) -> None:
    """Raise UserError if all images are unreadable, or (unless `skip`) any is."""
    names = [images.ids[position] for position, _ in unreadable]
    found = (
        f"{len(names):,} of {pluralize(len(images), 'image')} cannot be read: "
        f"{list_first(names, 20)} ({unreadable[0][1].rstrip('.')})"
    )
    if len(names) == len(images):
        raise UserError(f"{found}: nothing can be predicted")
    if not skip:
        fix = "replace them and rerun the same command to resume,"
        if images.images.packs:
            fix = "replace them, make the pack again, then rerun this command,"
        raise UserError(f"{found}; {fix} or leave them out with --on_bad_image skip")


def _skipped_path(output: Path) -> Path:
    return output.with_name(f"{output.stem}_skipped.csv")


def _is_skipped_list(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(1000).rstrip("\n") in _HEADERS


def _list_unreadable(
    unreadable: Sequence[tuple[int, str]],
    images: LabelTable,
    blocks: PredictionBlocks,
    *,
    anonymous: bool,
) -> None:
    """Write the list of unreadable images; if there are none, delete an earlier list."""
    path = _skipped_path(blocks.output)
    if not unreadable:
        if path.is_file() and _is_skipped_list(path):
            path.unlink()
        return
    positions = [position for position, _ in unreadable]
    frame = pd.DataFrame({"ImageID": [images.ids[position] for position in positions]})
    if images.studies is not None:
        frame["StudyID"] = images.studies[positions]
    frame["reason"] = ["" if anonymous else reason for _, reason in unreadable]
    # a reason has the path, and a folder's name may not be UTF-8
    blocks.write_file(
        path, lambda draft: frame.to_csv(draft, index=False, errors="backslashreplace")
    )
