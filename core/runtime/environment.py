"""Environment of each start of a run (versions, commit, command), and changes between starts."""

import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import core
from core.errors import doctor_hint, escape_control, list_first

PROJECT = "longtail-cxr"
# maximum number of starts in env.json
MOST_STARTS = 100


def describe_start() -> dict[str, Any]:
    """JSON-able time, command and software of this process, without the host's name."""
    # late: other functions here do not need torch
    from core.runtime.fabric import versions

    return {
        # two starts in one second have different identities for trackers
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        "command": sys.argv,
        "commit": commit(Path(core.__file__).resolve().parents[1]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions() | installed(),
    }


def commit(folder: Path) -> str:
    """Commit checked out in `folder`, with "-dirty" if files differ from it.

    "" without git, and if `folder` itself is not a checkout: a parent may be the user's.
    """
    # by default git would search the parent folders too
    git = ["git", "--no-optional-locks", f"--git-dir={folder / '.git'}", f"--work-tree={folder}"]
    git += ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            git, cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def earlier_starts(environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The starts in an env.json."""
    starts = environment.get("starts")
    return (
        [start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []
    )


def limit_starts(starts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first start and the latest ones, at most `MOST_STARTS`."""
    return starts[:1] + starts[1:][-(MOST_STARTS - 1) :]


def describe_changes(starts: list[dict[str, Any]]) -> str:
    """Describe version changes between the first and the last of `starts`, or ""."""
    if len(starts) < 2:
        return ""
    before, now = _software(starts[0]), _software(starts[-1])
    changes = [
        escape_control(f"{name:.40} {before[name]:.60} then, {now[name]:.60} now")
        for name in before
        if name in now and not _is_same(before[name], now[name])
    ]
    if not changes:
        return ""
    return (
        f"This run began with other software ({list_first(changes, 6)}): its numbers may differ "
        "from those of an uninterrupted run"
        f"{doctor_hint('compares versions with constraints.txt')}."
    )


def describe_file_changes(starts: list[dict[str, Any]]) -> str:
    """Warning if the image files differ from those of the previous start, or ""."""
    digests = [start["files"] for start in starts[-2:] if start.get("files")]
    if not all(isinstance(digest, str) for digest in digests) or len(set(digests)) < 2:
        return ""
    return (
        "Warning: image files changed since the last start of this run (file sizes, or pixels of a "
        "pack): its numbers mix both; --overwrite restarts with the new files."
    )


def installed() -> dict[str, str]:
    """Installed versions of this project and its dependencies."""
    try:
        needed = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        return {}
    found = {}
    for requirement in (PROJECT, *needed):
        if re.search(r"extra == .dev.", requirement):
            continue
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        with suppress(metadata.PackageNotFoundError):
            found[name.replace("-", "_")] = metadata.version(name)
    return found


def _is_same(before: str, now: str) -> bool:
    """Whether two versions are equal; builds (2.14.1+cu130) are compared if both have one."""
    one, other = before.partition("+"), now.partition("+")
    return one == other or (one[0] == other[0] and one[1] != other[1])


def _software(start: Mapping[str, Any]) -> dict[str, str]:
    """Python, commit and package versions recorded for a start."""
    versions = start.get("versions")
    found = {"python": start.get("python"), "commit": start.get("commit")}
    found |= versions if isinstance(versions, dict) else {}
    return {name: value for name, value in found.items() if isinstance(value, str) and value}
