"""`python -m benchmarks [name ...]`: every question, or those of the named files, in one table."""

import argparse
import json
import sys
from contextlib import redirect_stdout
from typing import NoReturn

from benchmarks import help, infer, memory, metrics, sampler, step, table
from benchmarks.runner import HEADER, Answer, real_data
from core.cli import run
from core.errors import UserError, nearest

QUESTIONS = {
    "help": help.answers,
    "table": table.answers,
    "sampler": sampler.answers,
    "step": step.answers,
    "memory": memory.answers,
    "metrics": metrics.answers,
    "infer": infer.answers,
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(message)


def main() -> None:
    """Print the table, or the JSON array; exit code 1 where a bound is missed."""
    names, as_json = arguments()
    if real_data() is None:
        print("no real data (set CXR_REAL_DATA): what needs it is left out", file=sys.stderr)
    out = sys.stdout
    if not as_json:
        print(HEADER, file=out)
    answers: list[Answer] = []
    # what the measured code prints is no part of the answers
    with redirect_stdout(sys.stderr):
        for name in names:
            for answer in QUESTIONS[name]():
                answers.append(answer)
                if not as_json:
                    print(answer, file=out, flush=True)
    if as_json:
        records = [answer.record() for answer in answers]
        print(json.dumps(records, indent=2, allow_nan=False), file=out)
    sys.exit(int(any(answer.verdict == "MISSED" for answer in answers)))


def arguments() -> tuple[list[str], bool]:
    """The questions to answer, and whether as JSON. Raises UserError for what is not known."""
    parser = Parser(
        prog="python -m benchmarks",
        description="Print what is measured, and how it stands against a limit or a peer.",
        allow_abbrev=False,
    )
    known = ", ".join(QUESTIONS)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {known}; all if none")
    parser.add_argument("--json", action="store_true", help="one JSON array in place of the table")
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
