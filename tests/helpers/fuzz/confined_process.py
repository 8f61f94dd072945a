"""Process behind `harness.Watched`: imports everything once, forks for each list of inputs.

`confined_process.py MODULE...` reads requests, a line of JSON each, and answers with an outcome for
each input as soon as it ended, and with the child's exit code. A child ends early
after what may have spoiled it; the rest of its inputs is then asked for again.
"""

import gc
import importlib
import io
import json
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import cv2

from core.config.command_line import run
from tests.helpers.fuzz.audit import Guard

# so that no input takes the machine down: address space, of which much is never used
_ADDRESSES = 3
LONGEST_SENTENCE = 1100
# control characters, separators of lines, and what turns the direction of writing
_UNCLEAN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def serve() -> None:
    """Answer requests until standard input ends."""
    gc.collect()
    gc.freeze()
    answers = os.dup(1)
    for line in sys.stdin:
        request = json.loads(line)
        module, function = request["target"].split(":")
        target = getattr(_import(module), function)
        tasks = Path("/proc/self/task")
        assert len(list(tasks.iterdir())) == 1, "threads do not survive a fork"
        pid = os.fork()
        if pid == 0:
            handle(target, request["inputs"], request["longest"], answers)
        _, status = os.waitpid(pid, 0)
        _send(answers, {"ended": os.waitstatus_to_exitcode(status)})


def _import(name: str) -> ModuleType:
    """A module of the project by its full name, or one of this folder."""
    ours = name.startswith("core.")
    return importlib.import_module(name if ours else f"tests.helpers.fuzz.{name}")


def handle(
    target: Callable[..., Any], inputs: list[list[Any]], longest: float, answers: int
) -> NoReturn:
    """All inputs one after the other, in the child, up to one that may have spoiled it.

    A signal ends the child after `longest` seconds of the processor, or six times as long.
    """
    printed = os.memfd_create("printed")
    for stream in (1, 2):
        os.dup2(printed, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    most = int(os.environ["FUZZ_MEMORY"])
    memory = Memory(_ADDRESSES * most)
    guard = Guard(os.environ["FUZZ_OUT"])
    for arguments in inputs:
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_PROF, longest)
        signal.setitimer(signal.ITIMER_REAL, 6 * longest)
        memory.reset()
        kind, text = _ended(partial(target, *arguments), printed)
        if guard.breaches:
            kind, text = guard.breaches[0].kind, "\n".join(str(one) for one in guard.breaches)
        elif (grown := memory.grown()) > most:
            kind, text = "memory", f"{grown / 2**30:.1f} GB"
        _send(answers, {"kind": kind, "text": text[-20_000:], "seconds": time.monotonic() - began})
        if kind not in ("ok", "refused", "traceback"):
            break
    os._exit(0)


def _ended(call: Callable[[], Any], printed: int) -> tuple[str, str]:
    """Outcome of one input, as the command line reports it."""
    os.ftruncate(printed, 0)
    os.lseek(printed, 0, os.SEEK_SET)
    try:
        run(call)
        kind = "ok"
    except SystemExit as stop:
        kind = "refused" if stop.code == 2 else "traceback"
    except BaseException:
        return "traceback", traceback.format_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    text = os.pread(printed, 2**20, 0).decode(errors="replace")
    if kind == "refused" and "memory is used up" in text:
        kind = "memory"
    if kind == "refused" and not _is_sentence(text):
        kind = "traceback"
    return kind, text


def _is_sentence(printed: str) -> bool:
    """Whether this ends in a one-line error; decoders may have printed before."""
    lines = printed.removesuffix("\n").split("\n")
    last = lines[-1]
    return (
        [line for line in lines if line.startswith("error: ")] == [last]
        and len("error: ") < len(last) <= LONGEST_SENTENCE
        and not any(map(_UNCLEAN.search, lines))
        and "Traceback" not in printed
    )


class Memory:
    """Peak resident memory of this process since `reset`, above the value at that time."""

    def __init__(self, addresses: int) -> None:
        # opened before anything is refused
        self._clear = os.open("/proc/self/clear_refs", os.O_WRONLY)
        self._status = os.open("/proc/self/status", os.O_RDONLY)
        self._before = 0
        most = self._read("VmSize") + addresses
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    def reset(self) -> None:
        """Restart the measurement."""
        os.write(self._clear, b"5")  # the peak alone (man 5 proc)
        self._before = self._read("VmRSS")

    def grown(self) -> int:
        """Bytes."""
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        text = os.pread(self._status, 2**14, 0).decode()
        return 1024 * int(text.split(f"{name}:")[1].split()[0])


def _send(answers: int, answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(answers, data) :]


if __name__ == "__main__":
    # a process with threads cannot be forked
    cv2.setNumThreads(0)
    for name in sys.argv[1:]:
        _import(name)
    sys.stdin = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8")
    serve()
