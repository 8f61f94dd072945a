"""`ensemble.serve` in a separate process, concurrent clients, and valid and invalid files."""

import base64
import http.client
import json
import os
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import cv2
import numpy as np

from benchmarks.images import image_set
from benchmarks.speed.memory import can_measure, tree_megabytes

MEGABYTES = 8
# of /map: the first class of `save_models`
CLASS = "class 0"
RIGHT = ("predict", "map")


class Reply(NamedTuple):
    """Reply to a file: its name, status, answer and seconds."""

    name: str
    status: int
    answer: dict[str, Any]
    seconds: float


def same(reply: Reply, alone: Reply) -> bool:
    """True if two answers agree: probabilities to 1e-6, a map to one of its 255 levels."""
    if reply.status != 200 or alone.status != 200:
        return (reply.status, reply.answer) == (alone.status, alone.answer)
    one, other = _numbers(reply.answer), _numbers(alone.answer)
    tolerance = 1 if "map" in reply.answer else 1e-6
    return one.shape == other.shape and np.allclose(one, other, rtol=0, atol=tolerance)


def _numbers(answer: dict[str, Any]) -> np.ndarray:
    """Pixels of the map, or probabilities."""
    if "map" not in answer:
        return np.array([one["probability"] for one in answer["classes"]])
    data = np.frombuffer(base64.b64decode(answer["map"].partition(",")[2]), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED)).astype(int)


def ask(port: int, name: str, data: bytes = b"", class_name: str = CLASS) -> Reply:
    """Send a file to /predict or /map by the start of its name, or request /health."""
    began = time.perf_counter()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        if name == "health":
            connection.request("GET", "/health")
        else:
            path = f"/map?class={quote(class_name)}" if name.startswith("map") else "/predict"
            connection.request("POST", path, body=data)
        answer = connection.getresponse()
        content = json.loads(answer.read())
    return Reply(name, answer.status, content, time.perf_counter() - began)


def load(
    port: int, files: Mapping[str, bytes], clients: int, each: int, class_name: str = CLASS
) -> list[Reply]:
    """Replies to `clients` that start together and send `each` files one after another.

    Every other file is valid, and each client starts at another position of the list. Raises
    OSError if a client has no answer.
    """
    right = [name for name in files if name.startswith(RIGHT)]
    wrong = [name for name in files if name not in right]
    together = threading.Barrier(clients)

    def client(number: int) -> list[Reply]:
        together.wait()
        lists = [(turn // 2, right if turn % 2 else wrong) for turn in range(number, number + each)]
        names = [names[place % len(names)] for place, names in lists]
        return [ask(port, name, files[name], class_name) for name in names]

    with ThreadPoolExecutor(clients) as pool:
        return [reply for replies in pool.map(client, range(clients)) for reply in replies]


@contextmanager
def served(
    checkpoints: Sequence[Path], empty: Path, *flags: str
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Process that serves these models from its working folder `empty`, and its port.

    `empty`/tmp is the folder of its temporary files.
    """
    command = [sys.executable, "-m", "ensemble.serve", "--port", "0", *flags]
    command += ["--max_megabytes", str(MEGABYTES), "--checkpoints", *map(str, checkpoints)]
    environment = os.environ | {"TMPDIR": str(empty / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command, cwd=empty, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = (re.match(r"page +http://127\.0\.0\.1:(\d+)", line) for line in process.stdout)
            found = next(filter(None, lines), None)
            if found is None:
                raise RuntimeError(f"ensemble.serve ended with {process.wait()}")
            yield process, int(found[1])
        finally:
            process.kill()


def watch(process: int, port: int, over: threading.Event) -> list[tuple[float, float]]:
    """Measure the seconds of /health and the memory in MB (0 without /proc) every 50 ms."""
    looks = []
    while not over.wait(0.05):
        health = ask(port, "health")
        if health.status != 200:
            raise RuntimeError("/health does not answer")
        looks.append((health.seconds, tree_megabytes(process) if can_measure() else 0.0))
    return looks


def right_files(folder: Path) -> dict[str, bytes]:
    """Valid radiographs, real ones if available; every third is for /map."""
    images = image_set(folder, "nih1000", images=20, size=512) / "images"
    paths = sorted(path for path in images.iterdir() if path.is_file())[:10]
    return {
        f"{'map' if number % 3 == 2 else 'predict'} {number}": path.read_bytes()
        for number, path in enumerate(paths)
    }


@cache
def wrong_files(largest: int) -> dict[str, bytes]:
    """Invalid files by name, for a limit of `largest` bytes."""
    sound = cv2.imencode(".png", np.arange(4096, dtype=np.uint8).reshape(64, 64))[1].tobytes()
    # offsets in a PNG: size 16, checksum of the header 29
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + sound[24:29]
    bomb = sound[:12] + header + struct.pack(">I", zlib.crc32(header)) + sound[33:]
    return {
        "cut short": sound[: len(sound) // 2],
        "empty": b"",
        "a text": b"no image at all\n" * 100,
        "a bomb": bomb,
        "100 megapixels": cv2.imencode(".png", np.zeros((10_000, 10_001), np.uint8))[1].tobytes(),
        "too large": bytes(largest + 1),
    }
