"""`python -m benchmarks [name ...]`: every question, or the named ones, in one table."""

import argparse
import importlib
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from benchmarks.runner import HEADER, Answer, real_data
from core.config.command_line import run
from core.errors import UserError, nearest
from core.io.atomic import check_writable, write_atomically

# each a file of `benchmarks/speed` with a function `answers(folder)`
QUESTIONS = (
    *("loader", "step", "infer", "metrics", "split", "startup"),
    *("pack", "wait", "sampler", "memory"),
)


def main() -> None:
    """Print the table, and write it as JSON with --json; exit code 1 where a bound is missed."""
    names, file = arguments()
    if file is not None:
        check_writable(file, (), "--json")
    if real_data() is None:
        print("no real data (set CXR_REAL_DATA): what needs it is left out", file=sys.stderr)
    out = sys.stdout
    print(HEADER, file=out)
    answers: list[Answer] = []
    # what the measured code prints is not part of the table
    with redirect_stdout(sys.stderr):
        for name in names:
            for answer in answers_of(name):
                answers.append(answer)
                print(answer, file=out, flush=True)
    if file is not None:
        text = json.dumps([answer.record() for answer in answers], indent=2, allow_nan=False)
        write_atomically(file, lambda path: path.write_text(text + "\n", encoding="utf-8"))
    sys.exit(int(any(answer.verdict == "MISSED" for answer in answers)))


def answers_of(name: str) -> Iterator[Answer]:
    """The answers to one question, as they are measured; its files are deleted at the end."""
    module = importlib.import_module(f"benchmarks.speed.{name}")
    with tempfile.TemporaryDirectory() as folder:
        yield from module.answers(Path(folder))


def arguments() -> tuple[list[str], Path | None]:
    """The questions to answer, and the file for JSON. Raises UserError for unknown words."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Print what is measured, and how it stands against a limit or a peer.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    known = ", ".join(QUESTIONS)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {known}; all if none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the table there as JSON")
    try:
        # intermixed: names may stand on both sides of the flag
        options, unknown = parser.parse_known_intermixed_args()
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    if unknown:
        raise UserError(f"there is no flag '{unknown[0]}'{nearest(unknown[0], ['--json'])}")
    for name in options.names:
        if name not in QUESTIONS:
            raise UserError(f"there is no benchmark '{name}'{nearest(name, QUESTIONS)}")
    return options.names or list(QUESTIONS), options.json


if __name__ == "__main__":
    run(main)
