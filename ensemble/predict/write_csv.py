"""Images → blocks of predictions → one CSV: models and studies merged, postprocessed, in order."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from core.data.images.pack_format import is_pack
from core.data.loading.dataset import decoding_loader
from core.data.tables.images_to_predict import view_groups
from core.data.tables.label_table import LabelTable
from core.errors import UserError, list_first, pluralize
from core.io.atomic import check_writable
from ensemble.predict.blocks import Block, Parts, forget_delivered, parts_folder
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

_ALREADY_THERE = "{} is there already: name another --output, or pass --overwrite to replace it"
_HEADERS = ("ImageID,reason", "ImageID,StudyID,reason")


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written of the predictions."""

    columns: Sequence[str] = ()  # classes to write, in this order; all unless given
    skip_unreadable: bool = False  # list images that cannot be read; else they are an error
    anonymous: bool = False  # list them without the reasons, which name their files
    overwrite: bool = False


def check_output(
    output: Path, inputs: Sequence[Path], images: LabelTable | None, options: OutputOptions
) -> None:
    """Raise UserError where `output`, or its list of skipped images, would replace something."""
    check_writable(output, inputs)
    if is_pack(output.parent):
        raise UserError(f"{output} lies in a pack of images: give another --output")
    skipped = _skipped_path(output)
    if options.skip_unreadable:
        check_writable(skipped, inputs)
        if skipped.exists() and not _is_skipped_list(skipped):
            raise UserError(f"{skipped} would be replaced by a list of unreadable images: move it")
    overlap = overlap_path(output)
    check_writable(overlap, inputs)
    if overlap.exists() and not is_overlap(overlap):
        raise UserError(f"{overlap} would be replaced by what the checkpoints know: move it")
    if not output.exists():
        return
    if images is not None and any(map(output.samefile, filter(os.path.exists, images.paths))):
        raise UserError(f"{output} is an image that is read: give another --output")
    # with its parts beside it, it may be that of a run that was killed while it wrote
    if not options.overwrite and not parts_folder(output).exists():
        forget_delivered(output)
        raise UserError(_ALREADY_THERE.format(output))


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

    Blocks are kept beside `output` until then, from which the same command resumes. Raises
    UserError where an image cannot be read, a pack is too small, a probability is not finite, the
    disk is full, or `output` exists (unless overwritten).
    """
    fabric = predictor.fabric
    for sentence in images.images.check_sizes(predictor.ensemble.sizes):
        if fabric.is_global_zero:
            print(sentence)
    with Parts(output, images.images, predictor.identity, batch_size) as parts:
        missing: list[int] = []
        if fabric.is_global_zero:
            missing = parts.open()
            # none is missing after a kill while the output was written
            if missing and output.exists() and not options.overwrite:
                raise UserError(_ALREADY_THERE.format(output))
            if others := parts.clean():
                kept = pluralize(others, "kept block")
                print(f"Deleted {kept} of other images, models, views or batches.")
            if len(missing) < len(parts):
                there = len(parts) - len(missing)
                print(f"Going on: {there:,} of {len(parts):,} blocks are there.")
        missing = fabric.broadcast(missing)
        try:
            _predict_blocks(predictor, parts, missing, workers)
        except (KeyboardInterrupt, SystemExit):
            if fabric.is_global_zero:
                print("\nStopped. The same command goes on where this one was.")
            raise
        if fabric.is_global_zero:
            rows = _write_predictions(parts, images, predictor, options)
            by = pluralize(len(predictor.ensemble.members), "model")
            print(f"predictions  {output} ({rows} by {by}, views: {predictor.merge.views})")


def _predict_blocks(
    predictor: Predictor, parts: Parts, missing: Sequence[int], workers: int
) -> None:
    fabric = predictor.fabric
    mine = missing[fabric.global_rank :: fabric.world_size]
    batches = parts.batches(mine)
    sizes, digest_sizes = predictor.ensemble.sizes, predictor.ensemble.digest_sizes
    images = ImagesAtSizes(parts.images, sizes, digest_sizes)
    workers, pin = min(workers, len(batches)), fabric.device.type == "cuda"
    stream = iter(decoding_loader(images, batches, workers, collate=collate, pin_memory=pin))
    several = f" (process 1 of {fabric.world_size})" if fabric.world_size > 1 else ""
    total, silent = sum(map(len, batches)), None if fabric.is_global_zero else True
    with tqdm(desc=f"predicting{several}", total=total, unit="img", disable=silent) as bar:
        models, classes = len(predictor.ensemble.members), len(predictor.class_names)
        for number in mine:
            found = [np.empty((models, 0, classes), np.float32)]
            digests = [np.empty((0, len(digest_sizes)), np.int64)]
            positions: list[int] = []
            unreadable: list[tuple[int, str]] = []
            for batch in islice(stream, len(parts.batches([number]))):
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
            parts.write(number, block)
    fabric.barrier()


def _write_predictions(
    parts: Parts, images: LabelTable, predictor: Predictor, options: OutputOptions
) -> str:
    """Merge the blocks into one CSV and delete them; returns what was written.

    Raises UserError where an image could not be read (unless skipped) and where none could.
    """
    unreadable = parts.unreadable()
    if unreadable:
        _check_unreadable(unreadable, images, skip=options.skip_unreadable)
    columns = list(options.columns or predictor.class_names)
    rows = 0

    def fill(path: Path) -> None:
        nonlocal rows
        with path.open("w", encoding="utf-8", newline="") as file:
            for names, probabilities in _merged(parts, images, predictor):
                frame = pd.DataFrame(probabilities, columns=predictor.class_names)[columns]
                frame.insert(0, images.id_column, names)
                frame.to_csv(file, index=False, header=rows == 0, float_format="%.8g")
                rows += len(frame)

    # before the output: after a kill in between the same command writes all
    _list_unreadable(unreadable, images, parts, anonymous=options.anonymous)
    _write_overlap(parts, images, predictor, anonymous=options.anonymous)
    parts.deliver(fill)
    if unreadable:
        print(f"left out     {len(unreadable):,} unreadable: {_skipped_path(parts.output)}")
    if images.studies is None:
        return pluralize(rows, "image")
    of = pluralize(len(images) - len(unreadable), "image")
    return f"{pluralize(rows, 'study', 'studies')} of {of}"


def _merged(
    parts: Parts, images: LabelTable, predictor: Predictor
) -> Iterator[tuple[list[str], Probabilities]]:
    """Names and probabilities (N, C) of images or studies, in the order of the images.

    Images come block by block; studies and ranks need all of them at once.
    """
    blocks = (block for block in map(parts.read, range(len(parts))) if len(block.positions))
    pairs: Iterable[tuple[NDArray[np.int64], Probabilities]] = (
        (block.positions, block.probabilities.astype(np.float64)) for block in blocks
    )
    if images.studies is not None or predictor.merge.ensemble_mode == "rank_mean":
        places, found = zip(*pairs, strict=True)
        pairs = [(np.concatenate(places), np.concatenate(found, axis=1))]
    for positions, probabilities in pairs:
        merged = predictor.merged(probabilities)
        names = [images.ids[position] for position in positions]
        if images.studies is not None:
            codes, studies = pd.factorize(images.studies[positions])
            groups = view_groups(images.views, len(images))[positions]
            merged, names = merge_studies(merged, codes, groups), studies.tolist()
        yield names, predictor.postprocess(merged)


def _write_overlap(
    parts: Parts, images: LabelTable, predictor: Predictor, *, anonymous: bool
) -> None:
    """Print and write which rows the checkpoints were trained or validated on."""
    ensemble = predictor.ensemble
    blocks = [(block.positions, block.digests) for block in map(parts.read, range(len(parts)))]
    positions, digests = map(np.concatenate, zip(*blocks, strict=True))
    read = images.take(positions)
    row_of, names = np.arange(len(read)), read.ids
    if read.studies is not None:
        row_of, studies = pd.factorize(read.studies)
        names = studies.tolist()
    members, sizes = ensemble.members, ensemble.digest_sizes
    overlap = find_overlap(members, sizes, digests, row_of, read, anonymous=anonymous)
    path = overlap_path(parts.output)
    parts.place(path, lambda draft: fill_document(draft, KIND, as_document(overlap, names)))
    unit = ("image", "images") if read.studies is None else ("study", "studies")
    for sentence in overlap.sentences(*unit):
        print(sentence)


def _check_unreadable(
    unreadable: Sequence[tuple[int, str]], images: LabelTable, *, skip: bool
) -> None:
    """Raise UserError where no image is left, or (unless `skip`) one could not be read."""
    names = [images.ids[position] for position, _ in unreadable]
    found = (
        f"{len(names):,} of {pluralize(len(images), 'image')} cannot be read: "
        f"{list_first(names, 20)} ({unreadable[0][1].rstrip('.')})"
    )
    if len(names) == len(images):
        raise UserError(f"{found}: there is nothing to write")
    if not skip:
        mend = "mend them and give the same command again, which keeps what is predicted already,"
        if images.images.packs:
            mend = "mend them, give the command that made the pack again and then this one,"
        raise UserError(f"{found}; {mend} or pass --on_bad_image skip to go without")


def _skipped_path(output: Path) -> Path:
    return output.with_name(f"{output.stem}_skipped.csv")


def _is_skipped_list(path: Path) -> bool:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(1000).rstrip("\n") in _HEADERS


def _list_unreadable(
    unreadable: Sequence[tuple[int, str]], images: LabelTable, parts: Parts, *, anonymous: bool
) -> None:
    """Write the list of unreadable images; without any, delete that of an earlier run."""
    path = _skipped_path(parts.output)
    if not unreadable:
        if path.is_file() and _is_skipped_list(path):
            path.unlink()
        return
    positions = [position for position, _ in unreadable]
    frame = pd.DataFrame({"ImageID": [images.ids[position] for position in positions]})
    if images.studies is not None:
        frame["StudyID"] = images.studies[positions]
    frame["reason"] = ["" if anonymous else reason for _, reason in unreadable]
    # a reason names the path, of which the folder may be no UTF-8
    parts.place(path, lambda draft: frame.to_csv(draft, index=False, errors="backslashreplace"))
