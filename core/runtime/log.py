"""The project's logger "longtail_cxr": plain lines, those of the first rank alone."""

import logging
import sys
import time

logger = logging.getLogger("longtail_cxr")
STARTED = time.monotonic()
"""Start of the program, as this is among the first modules that it imports."""


def _make_encodable(record: logging.LogRecord) -> bool:
    """Escape what UTF-8 cannot encode: names of files may hold any bytes."""
    record.msg = str(record.msg).encode(errors="backslashreplace").decode()
    return True


logger.addFilter(_make_encodable)


class Console(logging.Handler):
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


def start_logging(*, is_main: bool) -> None:
    """Print the log on the console, unless an application has set its handlers.

    Ranks other than the first (`is_main` False) log errors alone.
    """
    if not logger.hasHandlers():
        logger.addHandler(Console())
        # a handler of the root that comes later would print each line again
        logger.propagate = False
    logger.setLevel(logging.INFO if is_main else logging.ERROR)
