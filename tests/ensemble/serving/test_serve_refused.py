"""`python -m ensemble.serve`: access checks, request limits and refused flags."""

import http.client
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from starlette.requests import Request
from starlette.testclient import TestClient

from benchmarks.studies.serve_load.clients import ask, load, same, wrong_files
from ensemble import serve as command
from ensemble.serving.app import PAGE
from ensemble.serving.queue import Limits, RefusedError, RequestQueue
from tests.conftest import Call
from tests.helpers.calls import refusal
from tests.helpers.served_page import LIMITS, serve
from tests.helpers.training.small_run import MODEL


@pytest.fixture(scope="module")
def page(finished: tuple[Path, str]) -> TestClient:
    return serve(checkpoints=(finished[0] / f"{MODEL}_fold1.safetensors",))[1]


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"host": "127.0.0.1:8000"}, True),
        ({"host": "localhost:8000"}, True),
        ({"host": "[::1]:8000"}, True),
        # that of a tunnel or of another machine's browser: no name that a stranger could point here
        ({"host": "192.168.1.7:8000"}, True),
        ({"host": "evil.example:8000"}, False),
        ({"host": "127.0.0.1.evil.example"}, False),
        ({"host": "evil.example@127.0.0.1"}, False),
        ({"host": ""}, False),
        ({"origin": "http://127.0.0.1:8000"}, True),
        ({"origin": "http://127.0.0.1:9000"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, False),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, False),
    ],
)
def test_allowed_hosts_and_origins(
    page: TestClient, headers: dict[str, str], allowed: bool
) -> None:
    answer = page.get("/health", headers=headers)
    assert answer.status_code == (200 if allowed else 403)
    assert ("error" in answer.json()) != allowed
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", ["/", "/predict", "/map?class=Mass"])
def test_a_form_of_another_site_is_refused(page: TestClient, path: str) -> None:
    own = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate"}
    for headers, status in (
        ({"origin": "http://127.0.0.1:8000"} | own, 422),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        # without its origin
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ({"host": "evil.example"}, 403),
    ):
        answer = page.post(path, files={"file": ("a.png", b"x")}, headers=headers)
        assert answer.status_code == status, headers


def test_nothing_is_loaded_from_elsewhere_or_kept(page: TestClient) -> None:
    for path, status in (("/", 200), ("/about", 200), ("/docs", 404), ("/redoc", 404)):
        answer = page.get(path)
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert not re.search(r"http|unsafe|\*", policy)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
    text = PAGE.read_text(encoding="utf-8")
    assert page.get("/").text == text
    assert not re.search(r"https?:|src=\"//|@import|url\(|localStorage|document\.write", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b| on[a-z]+=\"", text)


def request(*chunks: bytes, pause: float = 0) -> Request:
    """Request with a body in these pieces, each after a pause in seconds."""
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        if not left:
            await anyio.sleep_forever()
        await anyio.sleep(pause)
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return Request({"type": "http", "headers": []}, receive)


def refused(turns: RequestQueue, *requests: Request, after: int = 0) -> list[int | bytes]:
    """What each of these requests at once is given, or the status with which it is refused; what
    is worked on first is done when so many others have an answer."""
    given: dict[int, int | bytes] = {}

    def work(body: bytes) -> bytes:
        while len(given) < after:
            time.sleep(0.005)
        return body

    async def one(place: int) -> None:
        await anyio.sleep(place * 0.01)
        try:
            given[place] = await turns.do(requests[place], work)
        except RefusedError as error:
            given[place] = error.status

    async def every() -> None:
        async with anyio.create_task_group() as group:
            for place in range(len(requests)):
                group.start_soon(one, place)

    anyio.run(every)
    assert turns.requests == 0
    return [given[place] for place in range(len(requests))]


def test_a_slow_file_is_given_up_and_its_place_is_free_again() -> None:
    turns = RequestQueue(Limits(bytes=9, files=1, seconds_to_send=0.3))
    slow = request(b"a", b"b", b"c", pause=0.2)
    assert refused(turns, slow, request(b"d")) == [408, b"d"]


def test_a_length_that_is_too_large_is_refused_before_anything_is_read() -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError("it is read")

    large = Request({"type": "http", "headers": [(b"content-length", b"10")]}, receive)
    assert refused(RequestQueue(Limits(bytes=9)), large) == [413]


def test_too_many_requests_are_asked_to_retry() -> None:
    turns = RequestQueue(Limits(bytes=9, files=1, requests=2))
    assert refused(turns, *(request(b"a") for _ in range(4)), after=2) == [b"a", b"a", 503, 503]
    turns = RequestQueue(Limits(bytes=9, files=1, seconds_to_wait=0.1))
    assert refused(turns, *(request(b"a") for _ in range(2)), after=1) == [b"a", 503]


def test_few_files_are_held_at_a_time_and_one_is_worked_on() -> None:
    turns = RequestQueue(Limits(bytes=9, files=2))
    read, done, most, working = 0, 0, 0, threading.Lock()

    class Noting(Request):
        async def stream(self) -> Any:
            nonlocal read, most
            read += 1
            most = max(most, read - done)
            yield b"a"

    def work(body: bytes) -> bytes:
        nonlocal done
        assert threading.current_thread() is not threading.main_thread()
        assert working.acquire(blocking=False)
        time.sleep(0.02)
        working.release()
        done += 1
        return body

    async def every() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(6):
                one = Noting({"type": "http", "headers": []}, request(b"").receive)
                group.start_soon(turns.do, one, work)

    anyio.run(every)
    assert (read, done, most) == (6, 6, 2)


@contextmanager
def running(page: TestClient) -> Iterator[int]:
    """The port of a real server of that page, in a thread."""
    settings = uvicorn.Config(page.app, http="h11", lifespan="off", log_level="critical")
    server = uvicorn.Server(settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def test_eight_clients_at_once_with_wrong_files_among_theirs(
    page: TestClient, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    written: list[object] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and watching and isinstance(arguments[2], int):
            changes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
            # by the number of a file that is open already, nothing is made
            if arguments[2] & changes and not isinstance(arguments[0], int):
                written.append(arguments[0])

    paths = sorted((phantom / "images").iterdir())[:3]
    kinds = zip(("predict 0", "predict 1", "map 2"), paths, strict=True)
    files = {kind: path.read_bytes() for kind, path in kinds} | wrong_files(LIMITS.bytes)
    watching = True
    # it cannot be taken away again
    sys.addaudithook(note)
    try:
        with running(page) as port:
            alone = {name: ask(port, name, data, "Mass") for name, data in files.items()}
            replies = load(port, files, 8, 6, "Mass")
    finally:
        watching = False
    assert len(replies) == 48
    assert all(same(reply, alone[reply.name]) for reply in replies)
    assert {reply.status for reply in replies} == {200, 413, 422}
    assert {reply.status for reply in replies if reply.name == "map 2"} == {200}
    assert written == []
    assert list(tmp_path.rglob("*")) == [tmp_path / "tmp"]


def test_a_client_that_disconnects_does_no_harm(page: TestClient, phantom: Path) -> None:
    data = sorted((phantom / "images").iterdir())[0].read_bytes()
    with running(page) as port:
        for sent in (b"", data[:50], data):
            client = http.client.HTTPConnection("127.0.0.1", port)
            client.putrequest("POST", "/predict")
            client.putheader("Content-Length", str(len(data)))
            client.endheaders(sent)
            client.close()
        assert ask(port, "a", data).status == 200


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--port", 70000), "--port must be at most 65535"),
        (("--max_megabytes", 0), "--max_megabytes must be"),
        (("--host", "no such name"), "--host 'no such name' is not an address"),
        (("--host", ""), "--host '' is not an address of this machine (N"),
        (("--ensemble_mode", "rank_mean"), "rank_mean ranks an image among many"),
        ((), "a.safetensors is not there"),
        (("--normal_alpha", 1), "need --postprocess"),
        # before models are loaded
        (("--port", "{taken}"), "error: port {taken} of 127.0.0.1 is in use"),
    ],
)
def test_what_it_does_not_start_with(call: Call, flags: tuple[object, ...], expected: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        words = [str(word).format(taken=taken) for word in flags]
        first = ("--checkpoints", "a.safetensors", "--port", 0)
        code, out, error = call(command.main, *first, *words)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert expected.format(taken=taken) in error


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "python_multipart"])
def test_without_the_extra_the_install_command_is_reported(
    call: Call, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    found = command.find_spec
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == package else found(name))
    error = refusal(call, command.main, "--checkpoints", "a.safetensors")
    install = 'pip install -c constraints.txt -e ".[serve]"'
    assert f"needs {package}, which is not installed: {install}" in error


def test_it_warns_where_others_reach_it() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert command.Config(host=host).for_this_machine
    assert not command.Config(host="0.0.0.0").for_this_machine
    assert command.address("::", 80) == "http://[::1]:80"
    assert command.address("0.0.0.0", 80) == "http://127.0.0.1:80"
    with command.listen("127.0.0.1", 0) as one:
        assert one.getsockname()[1] > 0
