"""Speed and memory on one GPU, for each method at its preset `paper`. Under eight minutes.

Training over a bare loop and over timm's, waiting for data, peak memory against `--dry_run`,
resume, fp16, prediction, two processes and `--compile`, on a phantom and random weights, with
batches that fit 16 GB (`benchmarks/gpu/plan.py`). The most telling measurements come first; those
that seven minutes do not reach are "not measured".
"""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.loops import compare_compiled, compare_fp16, compare_loops
from benchmarks.gpu.pipeline import make_data, measure_pack, measure_resume
from benchmarks.gpu.plan import Figure, Known, Plan
from benchmarks.gpu.prediction import compare_prediction
from benchmarks.gpu.two_processes import compare_processes
from core.errors import UserError

Steps = list[tuple[str, Callable[[Path], Iterator[Figure]]]]


def check() -> None:
    """Raise UserError without a GPU."""
    if not torch.cuda.is_available():
        raise UserError(
            "the question gpu needs a GPU that PyTorch can use, and none is found: run it on a "
            "machine with a GPU, or leave it out"
        )


def answers(folder: Path) -> Iterator[Figure]:
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    yield from measure(Plan(precision="bf16-mixed" if bf16 else "16-mixed"), folder)


def measure(plan: Plan, folder: Path) -> Iterator[Figure]:
    """Rows of all measurements of `plan`, with the reason for each that is missing."""
    began, environment = time.monotonic(), plan.environment()
    data = make_data(plan, folder / "data")
    for number, (name, step) in enumerate(steps(plan, data)):
        if time.monotonic() - began > plan.budget:
            note = f"not reached in {plan.budget:.0f} s"
            yield Figure.missing(name, note, environment)
            continue
        out = folder / str(number)
        out.mkdir()
        try:
            for figure in step(out):
                yield replace(figure, environment=environment)
        # the other measurements are still worth their time
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            yield Figure.missing(name, reason[:300], environment, failed=True)
        shutil.rmtree(out, ignore_errors=True)
        plan.reset_memory()


def steps(plan: Plan, data: Path) -> Steps:
    """Measurements by name, in order of value."""
    known, methods = Known(), list(plan.batches)
    first = methods[0]
    of_each: dict[str, Callable[[str, Path], Iterator[Figure]]] = {
        "training": lambda method, out: compare_loops(plan, method, out, known),
        "from a pack": lambda method, out: measure_pack(plan, method, data, out / "run", known),
        "resume": lambda method, out: measure_resume(plan, method, data, out, known),
        "fp16": lambda method, out: compare_fp16(plan, method, out, known),
        "--compile": lambda method, out: compare_compiled(plan, method, out, known),
    }
    rows = [
        (f"{method}: {what}", partial(step, method))
        for what, step in of_each.items()
        for method in methods
    ]

    def processes(out: Path) -> Iterator[Figure]:
        return compare_processes(plan, first, data, out / "run", known)

    once: Steps = [
        ("prediction", lambda out: compare_prediction(plan, data, out)),
        (f"{first}: two processes", processes),
    ]
    # compiling takes longest
    return [*rows[: -len(methods)], *once, *rows[-len(methods) :]]
