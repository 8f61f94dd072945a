"""Cache of predicted blocks on disk, from which a stopped `ensemble.infer` resumes."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.data.images.collection import Images
from core.errors import UserError
from core.io.atomic import cannot_write, write_atomically
from core.io.lock import LOCK, is_held, lock_folder
from core.models.checkpoint import load_facts, load_tensors, save_tensors

# the same for any number of processes, so that an image is always in the same batch
BATCHES_PER_BLOCK = 4
# a block, or the temporary file that a kill leaves
_OURS = re.compile(r"\.?\d{6}-[0-9a-f]{16}(\.\d+)?\.safetensors|\.tmp\w{6}|\.?merged(\.\d+)?\.csv")


@dataclass(frozen=True, eq=False)
class Block:
    """Predictions of consecutive images, and the reason for each unreadable one."""

    positions: NDArray[np.int64]  # (B,) among all images
    probabilities: NDArray[np.float32]  # (M, B, C), NaN where a model lacks a class
    unreadable: list[tuple[int, str]]  # (position, reason)
    digests: NDArray[np.int64]  # (B, S) of the images' pixels


def blocks_folder(output: Path) -> Path:
    """Folder of the blocks of `output`."""
    return output.with_name(f".{output.name}.parts")


class PredictionBlocks:
    """Folder beside `output` with its predicted blocks, deleted once `output` is written.

    A block's file name has a digest of `settings` and images, so that no other block is used.
    """

    def __init__(self, output: Path, images: Images, settings: str, batch_size: int) -> None:
        self.folder = blocks_folder(output)
        self.output, self.images, self.batch_size = output, images, batch_size
        length, positions = batch_size * BATCHES_PER_BLOCK, range(len(images))
        self._spans = [positions[start : start + length] for start in positions[::length]]
        self._files = [
            self.folder / f"{number:06d}-{self._digest(span, settings)}.safetensors"
            for number, span in enumerate(self._spans)
        ]
        self._lock: IO[str] | None = None

    def __len__(self) -> int:
        return len(self._spans)

    def _digest(self, span: range, settings: str) -> str:
        digest = hashlib.sha256(settings.encode())
        for position in span:
            state = f" {self.images.state(position)}\n".encode()
            digest.update(self.images.encoded_paths[position] + state)
        return digest.hexdigest()[:16]

    def open(self) -> list[int]:
        """Make and lock the folder; returns the numbers of the missing blocks.

        Raises UserError if another process holds the lock, or the folder cannot be made.
        """
        try:
            self._lock = lock_folder(self.folder, f"predicting into {self.output}")
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be written: {error.strerror}; choose another --output"
            ) from error
        missing = []
        for number in range(len(self)):
            try:
                self.read(number)
            except UserError:
                missing.append(number)
        return missing

    def clean(self) -> int:
        """Delete blocks of other settings or images; returns their number."""
        delete_finished_blocks(self.output)
        others = {*self.folder.iterdir()} - {*self._files}
        ours = [path for path in others if _OURS.fullmatch(path.name)]
        for path in ours:
            path.unlink()
        return sum(path.name[0] != "." and path.suffix == ".safetensors" for path in ours)

    def batches(self, numbers: Sequence[int]) -> list[list[int]]:
        """Batches of image positions in the blocks `numbers`, in order."""
        return [
            list(span[start : start + self.batch_size])
            for span in map(self._spans.__getitem__, numbers)
            for start in range(0, len(span), self.batch_size)
        ]

    def write(self, number: int, block: Block) -> None:
        """Write a block. Raises UserError if the disk is full or the folder is missing."""
        names = ("positions", "probabilities", "digests")
        arrays = {name: getattr(block, name) for name in names}
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        save_tensors(self._files[number], tensors, {"unreadable": block.unreadable})

    def read(self, number: int) -> Block:
        """Read a block. Raises UserError if it is damaged."""
        path = self._files[number]
        tensors, facts = load_tensors(path)
        try:
            names = ("positions", "probabilities", "digests")
            positions, rows, digests = (tensors[name].numpy() for name in names)
            unreadable = _unreadable(facts)
            found = sorted([*positions.tolist(), *(position for position, _ in unreadable)])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is not a valid block of predictions ({error})") from error
        shapes = rows.shape[1:2], digests.shape[:1]
        if found != list(self._spans[number]) or {*shapes} != {positions.shape}:
            raise UserError(f"{path} holds predictions of other images")
        return Block(positions, rows, unreadable, digests)

    def unreadable(self) -> list[tuple[int, str]]:
        """(position, reason) of all unreadable images. Raises UserError if a block is damaged."""
        return [pair for path in self._files for pair in _unreadable(load_facts(path))]

    def __enter__(self) -> "PredictionBlocks":
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock the folder, and delete it if it is empty."""
        if self._lock is None:
            return
        with suppress(OSError):  # not empty, or read-only by now
            if is_held(self.folder, self._lock):
                self._release_on_windows()
                (self.folder / LOCK).unlink(missing_ok=True)
                self.folder.rmdir()
        self._lock.close()

    def _release_on_windows(self) -> None:
        """Close the lock file: Windows neither moves nor deletes a folder of open files."""
        if os.name == "nt" and self._lock is not None:
            self._lock.close()

    def write_file(self, path: Path, fill: Callable[[Path], object]) -> None:
        """Write `path` by `fill`, whole or not at all, as `write_atomically` does.

        The temporary file is in the folder of the blocks, and is deleted with them. Raises
        UserError if the folder was removed, or the file cannot be written.
        """
        if self._lock is not None and not is_held(self.folder, self._lock):
            raise UserError(
                f"{self.folder} was removed or moved during the run: rerun the command to start "
                "again"
            )
        draft = self.folder / "merged.csv"
        write_atomically(draft, fill)
        try:
            draft.replace(path)
        except OSError as error:
            raise cannot_write(path, error) from error

    def finish(self, fill: Callable[[Path], object]) -> None:
        """Write the output by `fill`, then delete the blocks. Raises as `write_file` does."""
        self.write_file(self.output, fill)
        self._release_on_windows()
        try:
            # renamed as a whole: a part of the blocks would look like a run to resume
            self.folder.replace(_finished_folder(self.output))
        except OSError as error:
            raise cannot_write(self.output, error) from error
        if self._lock is not None:
            # from now on a folder of the same name belongs to another process
            self._lock.close()
            self._lock = None
        delete_finished_blocks(self.output)


def _unreadable(facts: dict[str, Any]) -> list[tuple[int, str]]:
    return [(int(position), str(reason)) for position, reason in facts["unreadable"]]


def _finished_folder(output: Path) -> Path:
    return output.with_name(f".{output.name}.delivered")


def delete_finished_blocks(output: Path) -> None:
    """Delete the blocks that a run left which was killed after its output was written."""
    folder = _finished_folder(output)
    # it may be missing, hold other files, or be deleted by another process at the same time
    with suppress(OSError):
        for path in folder.iterdir():
            if path.name == LOCK or _OURS.fullmatch(path.name):
                path.unlink(missing_ok=True)
        folder.rmdir()
