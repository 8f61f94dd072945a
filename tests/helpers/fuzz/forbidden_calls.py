"""What no reader may do, so that the tests of the harness see it noticed."""

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
    """What a stranger's stream of objects may name."""

    number: int


def well(out: str) -> None:
    """Write where that is allowed."""
    Path(out, "file.txt").write_text("fine")
    Path(out, "file.txt").rename(Path(out, "other.txt"))
    Path(out, "other.txt").unlink()
    print("done")


def refuse(sentence: str) -> None:
    """As the project refuses a file."""
    raise UserError(sentence)


def exit_with(code: int, sentence: str) -> None:
    """As a command ends by itself."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(code)


def fail() -> None:
    """What is no mistake of the user."""
    raise KeyError("nobody catches this")


def hang() -> None:
    """Not come to an end."""
    time.sleep(3600)


def crash() -> None:
    """End as a fault in C does."""
    os.abort()


def fill(gigabytes: float) -> None:
    """Take memory, and give it back before anybody looks."""
    np.ones(int(gigabytes * 2**30), dtype=np.uint8)


def write(path: str) -> None:
    """Write somewhere, and hide that it failed."""
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
    """Let a stream of bytes name a class."""
    ForkingPickler.loads(ForkingPickler.dumps(Odd(3)))


def connect() -> None:
    """Reach for the network."""
    with socket.socket() as one:
        one.connect(("127.0.0.1", 9))
