"""Local web page and JSON endpoint for probabilities and heat maps of single X-rays.

    python -m ensemble.serve --checkpoints a.safetensors b.safetensors
    python -m ensemble.serve --ensemble outputs/ensemble.json --calibration outputs/calibration.json

For research use only. No uploaded image is written to disk. Ctrl-C ends it.
"""

from __future__ import annotations

import errno
import socket
from contextlib import closing
from importlib.util import find_spec
from typing import TYPE_CHECKING

from core.config.command_line import flags, run
from core.errors import UserError
from core.runtime.log import logger
from core.runtime.signals import exit_on_signal, handle_stops
from ensemble.serving.config import Config

if TYPE_CHECKING:
    import uvicorn

INSTALL = 'pip install -c constraints.txt -e ".[serve]"'
# time for running requests after a stop is requested
_SECONDS_TO_END = 3


def main() -> None:
    """Run the command line."""
    config = flags(Config(), __doc__)
    config.check()
    for package in ("fastapi", "uvicorn", "python_multipart"):
        if find_spec(package) is None:
            raise UserError(f"the page needs {package}, which is not installed: {INSTALL}")
    # before the models, which take long to load
    with closing(listen(config.host, config.port)) as listener:
        # imported late for a fast --help
        import uvicorn

        from core.data.images.size_limit import max_pixels
        from core.runtime.fabric import make_fabric
        from core.runtime.precision import advise_amp
        from ensemble.serving.app import make_app
        from ensemble.serving.model import ServedModels
        from ensemble.serving.queue import Limits

        max_pixels()
        served = ServedModels.load(config, make_fabric(amp=config.amp))
        logger.info(served.predictor.ensemble)
        advise_amp(served.predictor.fabric, config.amp)
        limits = Limits(bytes=config.max_megabytes * 1_000_000)
        app = make_app(served, config.host, limits)
        # no log of requests: a URL may have a patient's name
        settings = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_SECONDS_TO_END,
        )
        port = listener.getsockname()[1]
        logger.info(
            f"page         {address(config.host, port)} (research use only; Ctrl-C ends it)"
        )
        if not config.for_this_machine:
            logger.warning(
                f"Warning: with --host {config.host} anyone on the network may send images and "
                "see answers, without a password and unencrypted."
            )
        serve_until_stopped(uvicorn.Server(settings), listener)


def serve_until_stopped(server: uvicorn.Server, listener: socket.socket) -> None:
    """Answer requests until a signal, then exit with its status."""
    stops: list[int] = []

    def stop(number: int) -> None:
        stops.append(number)
        server.should_exit = True

    # uvicorn handles the first two of STOPS itself, and sends them again at its end
    handle_stops(stop)
    server.run(sockets=[listener])
    if stops:
        exit_on_signal(stops[0])


def listen(host: str, port: int) -> socket.socket:
    """Listening socket. Raises UserError if the address or port cannot be used."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, place = found[0]
        return socket.create_server(place[:2], family=family, backlog=256)
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number == errno.EADDRINUSE:
            raise UserError(
                f"port {port} of {host} is in use: give another --port, or 0 for a free one"
            ) from error
        if number == errno.EACCES:
            raise UserError(
                f"--port {port} needs administrator rights: give one above 1023"
            ) from error
        reason = error.strerror if isinstance(error, OSError) else "invalid name"
        raise UserError(
            f"--host '{host}' is not an address of this machine ({reason}): give another, such as "
            "127.0.0.1"
        ) from error


def address(host: str, port: int) -> str:
    """URL of the page on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


if __name__ == "__main__":
    run(main)
