"""`python -m benchmarks [name ...]`: every question, or those of the named files, in one table."""

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import NoReturn

from benchmarks.runner import HEADER, Answer, real_data
from core.config.command_line import run
from core.errors import UserError, nearest
from core.io.atomic import check_writable, write_atomically

# a file of `benchmarks/speed` each, read when it is asked
QUESTIONS = (
    *("loader", "step", "infer", "metrics", "split", "startup"),
    *("pack", "wait", "sampler", "memory"),
)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(message)


def main() -> None:
    """Print the table, and keep it as JSON where asked; exit code 1 where a bound is missed."""
    names, file = arguments()
    if file is not None:
        check_writable(file, (), "--json")
    if real_data() is None:
        print("no real data (set CXR_REAL_DATA): what needs it is left out", file=sys.stderr)
    out = sys.stdout
    print(HEADER, file=out)
    answers: list[Answer] = []
    # what the measured code prints is no part of the answers
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
    """The answers to one question, one after another as they are measured."""
    return importlib.import_module(f"benchmarks.speed.{name}").answers()


def arguments() -> tuple[list[str], Path | None]:
    """The questions to answer, and the file to keep the answers in.

    Raises UserError for what is not known.
    """
    parser = Parser(
        prog="python -m benchmarks",
        description="Print what is measured, and how it stands against a limit or a peer.",
        allow_abbrev=False,
    )
    known = ", ".join(QUESTIONS)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {known}; all if none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the table there as JSON")
    # intermixed: names may stand on both sides of the flag
    options, unknown = parser.parse_known_intermixed_args()
    if unknown:
        raise UserError(f"there is no flag '{unknown[0]}'{nearest(unknown[0], ['--json'])}")
    for name in options.names:
        if name not in QUESTIONS:
            raise UserError(f"there is no benchmark '{name}'{nearest(name, QUESTIONS)}")
    return options.names or list(QUESTIONS), options.json


if __name__ == "__main__":
    run(main)
