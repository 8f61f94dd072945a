"""The project's logger: plain lines on the console, those of the first rank alone.

From Python nothing is printed until `start_logging` or `logging.basicConfig(level="INFO")`.
"""

import logging
import sys

logger = logging.getLogger("longtail_cxr")


class _Console(logging.Handler):
    """Lines above a progress bar: warnings and errors on stderr, the others on stdout.

    Unlike the handlers of `logging` it raises what a stream raises: a closed pipe or a full disk
    ends the program.
    """

    def emit(self, record: logging.LogRecord) -> None:
        # late: most of --help needs no progress bar
        from tqdm import tqdm

        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        # None: a program without a console
        if stream is not None:
            tqdm.write(self.format(record), file=stream)
            stream.flush()


def start_logging(*, is_main: bool = True) -> None:
    """Print the project's log on the console; on other ranks (`is_main` False) errors alone."""
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        logger.addHandler(_Console())
    # an application that embeds a command and logs by itself gets each line once
    logger.propagate = False
    set_rank(is_main=is_main)


def set_rank(*, is_main: bool) -> None:
    """Drop all but errors on a rank other than the first."""
    logger.setLevel(logging.INFO if is_main else logging.ERROR)
