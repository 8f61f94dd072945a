"""From blocks of predictions to one CSV: models and studies merged, post-processed, in order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.data.tables.images_to_predict import view_groups
from core.data.tables.label_table import LabelTable
from core.errors import UserError, counted, some
from ensemble.predict.blocks import Parts
from ensemble.predict.merge import Probabilities, merge_models, merge_studies, ranks


@dataclass(frozen=True, kw_only=True)
class Finish:
    """What becomes of the models' probabilities."""

    shares: NDArray[np.float64]
    """(M,) parts of 1"""
    mode: str = "weighted_mean"
    """A mode of `merge_models`, or rank_mean."""
    postprocess: Callable[[Probabilities], Probabilities] | None = None
    """(N, C) → (N, C), once models and studies are merged."""
    columns: Sequence[str] = ()
    """Which classes are written, in this order; all unless given."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, and list them; else they are an error."""
    anonymous: bool = False
    """List them without the reasons, which name their files."""

    def merged(self, probabilities: Probabilities) -> Probabilities:
        """Probabilities (M, N, C) of the models → (N, C). rank_mean needs all N at once."""
        if self.mode == "rank_mean":
            ranked = np.stack([ranks(one) for one in probabilities])
            return merge_models(ranked, self.shares, "weighted_mean")
        return merge_models(probabilities, self.shares, self.mode)


def write_predictions(
    parts: Parts, images: LabelTable, class_names: Sequence[str], finish: Finish
) -> str:
    """Make one CSV of the blocks, whole or not at all, and delete them; returns what it holds.

    One row an image in their order, or one a study where `images` has studies. Images are streamed;
    studies and ranks need all rows at once. Raises UserError where an image could not be read
    (unless those are skipped, and listed beside the CSV) and where none could.
    """
    unreadable = parts.unreadable()
    if len(unreadable) == len(images):
        raise UserError(f"{_told(unreadable, images)}: there is nothing to write")
    if unreadable and not finish.skip_unreadable:
        mend = "mend them and give the same command again, which keeps what is predicted already,"
        if images.images.packs:
            mend = "mend them, give the command that made the pack again and then this one,"
        raise UserError(
            f"{_told(unreadable, images)}; {mend} or pass --on_bad_image skip to go without"
        )
    pieces = _pieces(parts, whole=images.studies is not None or finish.mode == "rank_mean")
    columns = list(finish.columns or class_names)
    rows = 0

    def fill(path: Path) -> None:
        nonlocal rows
        with path.open("w", encoding="utf-8", newline="") as file:
            for positions, probabilities in pieces:
                merged = finish.merged(probabilities)
                names = [images.ids[position] for position in positions]
                if images.studies is not None:
                    merged, names = _studies(merged, positions, images)
                if finish.postprocess is not None:
                    merged = finish.postprocess(merged)
                frame = pd.DataFrame(merged, columns=list(class_names))[columns]
                frame.insert(0, images.id_column, names)
                frame.to_csv(file, index=False, header=rows == 0, float_format="%.8g")
                rows += len(frame)

    # before the output: after a kill in between the same command writes both
    listed = _list(unreadable, images, parts, anonymous=finish.anonymous)
    parts.deliver(fill)
    if images.studies is None:
        told = counted(rows, "image")
    else:
        told = f"{counted(rows, 'study', 'studies')} of "
        told += counted(len(images) - len(unreadable), "image")
    if unreadable:
        print(f"left out     {len(unreadable):,} unreadable: {listed}")
    return told


def _pieces(parts: Parts, *, whole: bool) -> Iterator[tuple[NDArray[np.int64], Probabilities]]:
    """(positions (B,), probabilities (M, B, C)) of each block that has any, or of all at once."""
    blocks = (parts.read(number) for number in range(len(parts)))
    pairs = (
        (block.positions, block.probabilities.astype(np.float64))
        for block in blocks
        if len(block.positions)
    )
    if not whole:
        yield from pairs
        return
    positions, probabilities = zip(*pairs, strict=True)
    yield np.concatenate(positions), np.concatenate(probabilities, axis=1)


def _studies(
    merged: Probabilities, positions: NDArray[np.int64], images: LabelTable
) -> tuple[Probabilities, list[str]]:
    """Probabilities (S, C) of the studies of these images, and the studies' names."""
    assert images.studies is not None
    codes, names = pd.factorize(images.studies[positions])
    groups = view_groups(images.views, len(images))[positions]
    return merge_studies(merged, codes, groups), names.tolist()


def skipped_path(output: Path) -> Path:
    """Where the images are listed that could not be read."""
    return output.with_name(f"{output.stem}_skipped.csv")


def is_skipped_list(path: Path) -> bool:
    """Whether a file is a list that an earlier run wrote."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(1000).rstrip("\n") in (_LIST_HEADER, _STUDY_LIST_HEADER)


_LIST_HEADER, _STUDY_LIST_HEADER = "ImageID,reason", "ImageID,StudyID,reason"


def _list(
    unreadable: list[tuple[int, str]], images: LabelTable, parts: Parts, *, anonymous: bool
) -> Path:
    """Write the list of unreadable images; where there are none, delete that of an earlier run."""
    path = skipped_path(parts.output)
    if not unreadable:
        if path.is_file() and is_skipped_list(path):
            path.unlink()
        return path
    positions = [position for position, _ in unreadable]
    frame = pd.DataFrame({"ImageID": [images.ids[position] for position in positions]})
    if images.studies is not None:
        frame["StudyID"] = images.studies[positions]
    frame["reason"] = ["" if anonymous else reason for _, reason in unreadable]
    # a reason names the path, of which the folder may be no UTF-8
    parts.place(
        path, lambda temporary: frame.to_csv(temporary, index=False, errors="backslashreplace")
    )
    return path


def _told(unreadable: list[tuple[int, str]], images: LabelTable) -> str:
    names = [images.ids[position] for position, _ in unreadable]
    return (
        f"{len(names):,} of {counted(len(images), 'image')} cannot be read: {some(names, 20)} "
        f"({unreadable[0][1].rstrip('.')})"
    )
