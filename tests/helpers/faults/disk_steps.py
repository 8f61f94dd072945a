"""File operations below a folder, counted as steps; a test lets one of them fail.

A step is what can fail by itself: to open a file for writing, each write that reaches the system
(also at flush and close), close, fsync, replace, mkdir, chmod, the reserving of room, safetensors.
"""

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

import core.models.checkpoint

Step = tuple[str, str]
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# of `os`: which of the arguments is the path, or a file's number
_PLACES = {"fsync": 0, "replace": 1, "rename": 1, "mkdir": 0, "chmod": 0}
_PLACES |= {"posix_fallocate": 0, "ftruncate": 0, "pwrite": 0}


class Steps:
    """Lets `strike` happen at each step below `folder`, once that is installed.

    `strike(number from 1, what, name)` raises what the step is to fail with, or returns.
    """

    def __init__(self, folder: Path, strike: Callable[[int, Step], None]) -> None:
        self.folder, self.strike = os.path.realpath(folder), strike
        self.seen: list[Step] = []
        self._resting = False

    def step(self, what: str, place: Any) -> None:
        """Count it, where it is of the folder."""
        if self._resting:
            return
        path = os.readlink(f"/proc/self/fd/{place}") if type(place) is int else os.fspath(place)
        path = os.path.abspath(os.fsdecode(path))
        if not path.startswith(self.folder + os.sep) and path != self.folder:
            return
        self.seen.append((what, os.path.relpath(path, self.folder)))
        # what the blow itself does is no step
        self._resting = True
        try:
            self.strike(len(self.seen), self.seen[-1])
        finally:
            self._resting = False

    def install(self) -> None:
        """Watch this process from now on."""
        for name, place in _PLACES.items():
            setattr(os, name, self._watched(getattr(os, name), name, place))
        system_open, file_open, save = os.open, io.open, core.models.checkpoint.save_file

        def open_number(path: Any, flags: int, *more: Any, **named: Any) -> int:
            if flags & _WRITES:
                self.step("open", path)
            return system_open(path, flags, *more, **named)

        def open_file(
            file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any
        ) -> IO[Any]:
            # an opener comes by os.open
            if type(file) is int or "opener" in named or not set(mode) & set("wax+"):
                return file_open(file, mode, buffering, *more, **named)
            self.step("open", file)
            return self._buffered(_Raw(self, file, mode.replace("t", "")), mode, *more, **named)

        def save_file(tensors: Any, path: Path, metadata: Any) -> None:
            try:
                self.step("save", path)
            except OSError as error:
                with file_open(path, "wb") as file:
                    file.write(b"half of a fi")
                # the message of safetensors
                raise SafetensorError(f"Error: {error.strerror} (os error {error.errno})") from None
            save(tensors, path, metadata)

        for owner, function in ((os, open_number), (io, open_file), (builtins, open_file)):
            setattr(owner, "open", function)  # noqa: B010
        setattr(core.models.checkpoint, "save_file", save_file)  # noqa: B010

    def _watched(self, function: Callable, what: str, place: int) -> Callable:
        def call(*arguments: Any, **named: Any) -> Any:
            self.step(what, arguments[place])
            return function(*arguments, **named)

        return call

    def _buffered(
        self,
        raw: io.FileIO,
        mode: str,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding, errors, newline)


class _Raw(io.FileIO):
    """A file of which each write, and the close, are steps."""

    def __init__(self, steps: Steps, path: Any, mode: str) -> None:
        super().__init__(path, mode)
        self._steps, self._path, self._took = steps, path, False

    def write(self, data: Any) -> int:
        try:
            self._steps.step("write", self._path)
        except OSError:
            # the disk may take a part
            super().write(data[: len(data) // 2])
            raise
        self._took = True
        return super().write(data)

    def close(self) -> None:
        opened = not self.closed
        super().close()
        # where nothing was written, nothing is left to fail
        if opened and self._took:
            self._steps.step("close", self._path)
