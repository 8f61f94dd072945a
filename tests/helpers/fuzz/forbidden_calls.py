"""Forbidden actions that the harness must notice, for its tests."""

import ctypes
import os
import socket
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import NamedTuple

import numpy as np

from core.errors import UserError


class Odd(NamedTuple):
    """A class that a pickle may name."""

    number: int


def well(out: str) -> None:
    """Write into the allowed folder."""
    Path(out, "file.txt").write_text("fine")
    Path(out, "file.txt").rename(Path(out, "other.txt"))
    Path(out, "other.txt").unlink()
    print("done")


def refuse(sentence: str) -> None:
    """Raise the error for an invalid file."""
    raise UserError(sentence)


def exit_with(code: int, sentence: str) -> None:
    """End with an exit code, as a command does."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(code)


def fail() -> None:
    """Raise an error that is a defect of the program."""
    raise KeyError("not caught")


def hang() -> None:
    """Never end."""
    time.sleep(3600)


def crash() -> None:
    """End by SIGABRT, as after a fault in C."""
    os.abort()


def fill(gigabytes: float) -> None:
    """Allocate memory and free it before it is measured."""
    np.ones(int(gigabytes * 2**30), dtype=np.uint8)


def write(path: str) -> None:
    """Write outside the folder and hide the failure."""
    try:
        Path(path).write_text("x")
    except Exception:
        return


def move(source: str, target: str) -> None:
    """Rename a file."""
    Path(source).touch()
    Path(source).rename(target)


def write_in_c(path: str) -> None:
    """Write without an audit event."""
    ctypes.CDLL(None).creat(path.encode(), 0o600)


def spawn() -> None:
    """Start a program."""
    subprocess.run(["true"], check=False)


def evaluate(text: str) -> None:
    """Run text from a file."""
    compile(text, "<string>", "eval")


def import_from(folder: str) -> None:
    """Import a module that lies beside the data."""
    sys.path.insert(0, folder)
    __import__("stranger")


def unpack_objects() -> None:
    """Unpickle a byte stream that names a class."""
    ForkingPickler.loads(ForkingPickler.dumps(Odd(3)))


def connect() -> None:
    """Open a network connection."""
    with socket.socket() as one:
        one.connect(("127.0.0.1", 9))
