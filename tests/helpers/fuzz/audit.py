"""Ban on forbidden actions of a child, by Python's audit events (PEP 578)."""

import ast
import collections
import dataclasses
import os
import sys
import sysconfig
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[3]
# code is run from here alone
_TRUSTED = tuple(
    {
        "<frozen ",
        f"{_ROOT}/",
        *(f"{os.path.realpath(path)}/" for path in sysconfig.get_paths().values()),
        *(f"{path}/" for path in sysconfig.get_paths().values()),
    }
)
# these write the text that they run: methods of a class, and what an annotation stands for
_GENERATE = (dataclasses.__file__, collections.__file__, typing.__file__)
# what Cython compiles and runs for the traceback of an error, whatever the file
_CYTHON = b"_getframe()"
_FRAME = compile(_CYTHON, "Cython", "eval")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# the arguments that name what is changed, each with that of the folder it is seen from
_CHANGES = {
    **dict.fromkeys(("os.rename", "os.link"), ((0, 2), (1, 3))),
    **dict.fromkeys(("os.mkdir", "os.chmod"), ((0, 2),)),
    "os.symlink": ((1, 2),),
    **dict.fromkeys(("os.remove", "os.rmdir"), ((0, 1),)),
    **dict.fromkeys(("os.chown", "os.truncate", "os.utime", "os.setxattr"), ((0, None),)),
    **dict.fromkeys(("os.removexattr", "sqlite3.connect"), ((0, None),)),
}
_PROCESSES = {
    *("subprocess.Popen", "pty.spawn", "socket.connect", "socket.bind", "socket.getaddrinfo"),
    *("socket.sendto", "urllib.Request", "ftplib.connect", "pickle.find_class"),
    *("sys.addaudithook", "webbrowser.open"),
    *(f"os.{call}" for call in ("system", "exec", "posix_spawn", "spawn", "fork", "forkpty")),
}


@dataclass
class BreachError(Exception):
    """A forbidden action."""

    kind: str
    """ "outside" or "code"."""
    what: str

    def __str__(self) -> str:
        return self.what


class Guard:
    """Forbid and record forbidden actions until the process ends."""

    def __init__(self, out: str) -> None:
        self.breaches: list[BreachError] = []
        self._out = os.path.realpath(out)
        self._watch: dict[str, Callable[[tuple[Any, ...]], str]] = {
            "open": self._opened,
            "exec": _executed,
            "compile": _compiled,
            "import": _imported,
            "ctypes.dlopen": _loaded,
            **{event: self._changed(places) for event, places in _CHANGES.items()},
        }
        self._inside = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        # looking at a path may itself raise events
        if self._inside:
            return
        self._inside = True
        try:
            if event in _PROCESSES:
                kind, what = "code", repr(arguments)[:300]
            elif event in self._watch:
                what = self._watch[event](arguments)
                kind = "outside" if event == "open" or event in _CHANGES else "code"
            else:
                return
            if what:
                self.breaches.append(BreachError(kind, f"{event}: {what}"))
                raise self.breaches[-1]
        finally:
            self._inside = False

    def _opened(self, arguments: tuple[Any, ...]) -> str:
        path, mode, flags = arguments
        writes = bool(flags & _WRITES) if isinstance(flags, int) else "r" not in str(mode)
        return self._outside(path) if writes else ""

    def _changed(
        self, places: tuple[tuple[int, int | None], ...]
    ) -> Callable[[tuple[Any, ...]], str]:
        def look(arguments: tuple[Any, ...]) -> str:
            problem = ""
            for path, folder in places:
                descriptor = -1 if folder is None else arguments[folder]
                problem += self._outside(arguments[path], descriptor)
            return problem

        return look

    def _outside(self, path: Any, descriptor: int = -1) -> str:
        """The path if it is outside the output folder, else an empty text."""
        if isinstance(path, int) or path == os.devnull:
            return ""
        text = os.fsdecode(path)
        if descriptor >= 0:
            text = os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), text)
        # the entry itself is changed, and what a link points at is written to
        places = os.path.realpath(text), os.path.realpath(os.path.dirname(text) or ".")
        inside = all(f"{place}/".startswith(f"{self._out}/") for place in places)
        return "" if inside else text


def _caller() -> Any:
    """Frame that raised the event, above this function, the check and the hook."""
    return sys._getframe(3)


def _executed(arguments: tuple[Any, ...]) -> str:
    code = arguments[0]
    if code.co_filename.startswith(_TRUSTED) or _caller().f_code.co_filename in _GENERATE:
        return ""
    if (code.co_code, code.co_names) == (_FRAME.co_code, _FRAME.co_names):
        return ""
    return f"{code.co_filename}, {code.co_names}"


def _compiled(arguments: tuple[Any, ...]) -> str:
    source, filename = arguments
    caller = _caller()
    if caller.f_code.co_filename in (ast.__file__, *_GENERATE):
        # to parse is not to run: what runs raises "exec"
        return ""
    if source == _CYTHON:
        return ""
    if isinstance(filename, (str, bytes)) and os.fsdecode(filename).startswith(_TRUSTED):
        return ""
    return f"{filename}: {str(source)[:200]}"


def _imported(arguments: tuple[Any, ...]) -> str:
    # modules in Python raise "exec" with their own file; those in C raise it here
    filename = arguments[1]
    return "" if filename is None or filename.startswith(_TRUSTED) else f"{filename}"


def _loaded(arguments: tuple[Any, ...]) -> str:
    name = os.fsdecode(arguments[0] or "")
    # by a bare name the system looks among its own libraries, as torch does for a GPU
    return name if "/" in name and not name.startswith(_TRUSTED) else ""
