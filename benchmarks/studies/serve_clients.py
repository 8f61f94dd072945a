"""`ensemble.serve` in a process of its own, clients that ask it, and right and wrong files."""

import base64
import http.client
import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.runner import real_data
from benchmarks.speed.memory import can_measure, tree_megabytes
from core.data.phantom.dataset import make_phantom

MEGABYTES = 8
# of /map: the first class of `save_models`
CLASS = "class 0"
RIGHT = ("predict", "map")
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Reply:
    """An answer, and what it took."""

    name: str
    status: int
    told: dict[str, Any]
    seconds: float


def same(reply: Reply, alone: Reply) -> bool:
    """Whether an answer is that which a client gets who is alone: probabilities to 1e-6, a map to
    one of its 255 levels."""
    if reply.status != alone.status or reply.told.keys() != alone.told.keys():
        return False
    if reply.status != 200:
        return reply.told == alone.told
    if "map" in reply.told:
        maps = [_map(one) for one in (reply, alone)]
        return maps[0].shape == maps[1].shape and int(np.ptp(np.subtract(*maps))) <= 1
    return np.allclose(_probabilities(reply), _probabilities(alone), rtol=0, atol=1e-6)


def _probabilities(reply: Reply) -> list[float]:
    return [one["probability"] for one in reply.told["classes"]]


def _map(reply: Reply) -> NDArray[np.int_]:
    data = np.frombuffer(base64.b64decode(reply.told["map"].partition(",")[2]), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED)).astype(int)


def ask(port: int, name: str, data: bytes, class_name: str = CLASS) -> Reply:
    """Send one file to /predict, or to /map of that class where its name begins with "map"."""
    path = f"/map?class={quote(class_name)}" if name.startswith("map") else "/predict"
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request("POST", path, body=data)
        answer = connection.getresponse()
        told = json.loads(answer.read())
    finally:
        connection.close()
    return Reply(name, answer.status, told, time.perf_counter() - began)


def load(
    port: int, files: Mapping[str, bytes], clients: int, each: int, class_name: str = CLASS
) -> list[Reply]:
    """All replies to that many clients, who begin together and send one file after another.

    Every other file is a right one, and each client begins at another place of the list. Raises
    OSError where a client has no answer.
    """
    right = [name for name in files if name.startswith(RIGHT)]
    wrong = [name for name in files if name not in right]
    together = threading.Barrier(clients)

    def client(number: int) -> list[Reply]:
        together.wait()
        replies = []
        for turn in range(number, number + each):
            names = right if turn % 2 else wrong
            name = names[turn // 2 % len(names)]
            replies.append(ask(port, name, files[name], class_name))
        return replies

    with ThreadPoolExecutor(clients) as pool:
        return [reply for replies in pool.map(client, range(clients)) for reply in replies]


@contextmanager
def served(
    checkpoints: Sequence[Path], empty: Path, *flags: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that serves these models, and its port; `empty` is its working folder, and tmp in
    it that of its temporary files."""
    command = [sys.executable, "-m", "ensemble.serve", "--port", "0", *flags]
    command += ["--max_megabytes", str(MEGABYTES), "--checkpoints", *map(str, checkpoints)]
    environment = os.environ | {"TMPDIR": str(empty / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command, cwd=empty, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        found = None
        for line in process.stdout:
            if found := re.match(r"page +http://127\.0\.0\.1:(\d+)", line):
                break
        if found is None:
            raise RuntimeError(f"ensemble.serve ended with {process.wait()}")
        yield process, int(found[1])
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def megabytes(process: int) -> float:
    """The memory of the process and its children now; 0 where /proc does not report it."""
    return tree_megabytes(process, "Pss") if can_measure() else 0.0


@contextmanager
def peak_of(process: int) -> Iterator[list[float]]:
    """A list of one number: the most megabytes that the process has while this lasts."""
    peak = [0.0]

    def look() -> None:
        peak[0] = max(peak[0], megabytes(process))

    with again_and_again(look):
        yield peak


@contextmanager
def pulse_of(port: int) -> Iterator[list[float]]:
    """The seconds that each answer of /health takes while this lasts."""
    pulse: list[float] = []

    def look() -> None:
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/health")
        if connection.getresponse().status != 200:
            raise RuntimeError("/health does not answer")
        connection.close()
        pulse.append(time.perf_counter() - began)

    with again_and_again(look):
        yield pulse


@contextmanager
def again_and_again(look: Callable[[], None]) -> Iterator[None]:
    """Calls `look` twenty times a second from another thread while this lasts."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.05):
            look()

    with ThreadPoolExecutor(1) as pool:
        watch = pool.submit(go_on)
        try:
            yield
        finally:
            over.set()
        watch.result()


def right_files(folder: Path) -> dict[str, bytes]:
    """Radiographs, real ones where they are at hand; every third one is named for its map."""
    data = real_data()
    if data is None:
        make_phantom(folder / "phantom", images=20, size=512)
    images = folder / "phantom" / "images" if data is None else data / "nih1000" / "images"
    paths = sorted(path for path in images.iterdir() if path.is_file())[:10]
    return {
        f"{'map' if number % 3 == 2 else 'predict'} {number}": path.read_bytes()
        for number, path in enumerate(paths)
    }


@cache
def wrong_files(largest: int) -> dict[str, bytes]:
    """What must be refused, by what it is, where files may have `largest` bytes."""
    sound = cv2.imencode(".png", np.arange(4096, dtype=np.uint8).reshape(64, 64))[1].tobytes()
    return {
        "cut short": sound[: len(sound) // 2],
        "empty": b"",
        "a text": b"no image at all\n" * 100,
        "a bomb": _png(60_000, 60_000, zlib.compress(bytes(2**22), 9)),
        "100 megapixels": _png(10_001, 10_000, zlib.compress(bytes(10_002 * 10_000), 1)),
        "too large": bytes(largest + 1),
        "several frames": several_frames(),
    }


def several_frames() -> bytes:
    """A DICOM file of three frames."""
    from pydicom import Dataset, dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, XRayAngiographicImageStorage, generate_uid

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = XRayAngiographicImageStorage, generate_uid()
    made.NumberOfFrames, made.Rows, made.Columns = 3, 16, 16
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation, made.SamplesPerPixel = 7, 0, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.PixelData = bytes(3 * 16 * 16)
    made["PixelData"].VR = "OB"
    stream = io.BytesIO()
    dcmwrite(stream, made, enforce_file_format=True)
    return stream.getvalue()


def _png(width: int, height: int, body: bytes) -> bytes:
    """A grey PNG whose header may lie about `body`, the deflated pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    return _PNG + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
