"""Request queue: bounded length, few files in memory, one prediction at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio
from starlette.requests import ClientDisconnect, Request

from core.errors import format_size
from ensemble.serving.form import file_of_form, is_form

Result = TypeVar("Result")


class RefusedError(Exception):
    """Refused request: HTTP status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the queue."""

    bytes: int  # of one file
    files: int = 8  # in memory at the same time
    requests: int = 64  # at the same time; others are refused
    seconds_to_wait: float = 120  # timeout until a file is read
    seconds_to_send: float = 60  # timeout of an upload

    @property
    def too_large(self) -> str:
        """Error message for a larger file."""
        return (
            f"the file has more than {format_size(self.bytes)}: start ensemble.serve with a larger "
            "--max_megabytes"
        )


class RequestQueue:
    """Queue of requests: a file is read if few are in memory, and predicted in order."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = 0
        self._files = anyio.Semaphore(limits.files)
        # one prediction at a time, for the device and the memory of the decoder
        self._work = anyio.Lock()

    async def do(self, request: Request, work: Callable[[bytes], Result]) -> Result:
        """Run `work` on the uploaded file in a thread. Raises RefusedError."""
        busy = RefusedError(503, "too many requests: try again in a minute")
        if self.requests >= self.limits.requests:
            raise busy
        self.requests += 1
        try:
            with anyio.move_on_after(self.limits.seconds_to_wait) as waiting:
                await self._files.acquire()
            if waiting.cancelled_caught:
                raise busy
            try:
                body = await self._body(request)
                if is_form(request.headers):
                    body = await file_of_form(request.headers, body)
                async with self._work:
                    if await request.is_disconnected():
                        raise ClientDisconnect
                    return await anyio.to_thread.run_sync(work, body)
            finally:
                self._files.release()
        finally:
            self.requests -= 1

    async def _body(self, request: Request) -> bytes:
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > self.limits.bytes:
            raise RefusedError(413, self.limits.too_large)
        body = bytearray()
        with anyio.move_on_after(self.limits.seconds_to_send) as sending:
            async for chunk in request.stream():
                body += chunk
                if len(body) > self.limits.bytes:
                    raise RefusedError(413, self.limits.too_large)
        if sending.cancelled_caught:
            seconds = f"{self.limits.seconds_to_send:g}"
            raise RefusedError(408, f"the file did not arrive within {seconds} seconds")
        return bytes(body)
