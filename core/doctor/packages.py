"""Python and the packages, against what the project asks for."""

import re
import sys
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import core
from core.doctor.findings import Findings
from core.errors import UserError, counted, some
from core.runtime.environment import PROJECT

CHECKOUT = Path(core.__file__).resolve().parents[1]
# what each extra is for; "dev" is for those who change the project
EXTRAS = {
    "dicom": "DICOM images",
    "tensorboard": "--tensorboard",
    "explain": "heat maps of every method, ensemble.explain",
    "export": "ONNX files, ensemble.export",
    "serve": "the web page, ensemble.serve",
}


@dataclass(frozen=True)
class Wanted:
    """What the project asks for."""

    python: str
    needed: list[Requirement]
    extras: dict[str, list[Requirement]]
    pinned: dict[str, SpecifierSet] | None
    """By name the versions of constraints.txt; None where that is not at hand."""
    checkout: bool
    """Whether the project runs from a folder of its sources."""

    def command(self, extra: str = "") -> str:
        """What installs the project as it should be, with an extra."""
        if not self.checkout:
            return f'pip install -U "{PROJECT}{extra and f"[{extra}]"}"'
        pins = "" if self.pinned is None else "-c constraints.txt "
        return f"pip install {pins}-e " + (f'".[{extra}]"' if extra else ".")


def read_wanted(folder: Path = CHECKOUT) -> Wanted:
    """What the checkout in `folder` asks for, else what the installed package does.

    Raises UserError where there is neither.
    """
    file = folder / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        project = {}
    if project.get("name") == PROJECT:
        extras = project.get("optional-dependencies", {})
        return Wanted(
            python=project.get("requires-python", ""),
            needed=[Requirement(text) for text in project.get("dependencies", [])],
            extras={name: [Requirement(text) for text in extras.get(name, [])] for name in EXTRAS},
            pinned=_read_constraints(folder / "constraints.txt"),
            checkout=True,
        )
    try:
        told = metadata.metadata(PROJECT).json
    except metadata.PackageNotFoundError:
        raise UserError(
            f"{PROJECT} is not installed and no checkout is in {folder}: what it needs is not "
            "known; clone it and give pip install -c constraints.txt -e ."
        ) from None
    every = [Requirement(text) for text in metadata.requires(PROJECT) or []]
    return Wanted(
        python=str(told.get("requires_python", "")),
        needed=[one for one in every if one.marker is None or one.marker.evaluate({"extra": ""})],
        extras={
            name: [one for one in every if one.marker and one.marker.evaluate({"extra": name})]
            for name in EXTRAS
        },
        pinned=None,
        checkout=False,
    )


def _read_constraints(path: Path) -> dict[str, SpecifierSet] | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    pinned: dict[str, SpecifierSet] = {}
    for line in lines:
        try:
            one = Requirement(re.sub(r"(^|\s)#.*", "", line))
        except InvalidRequirement:
            continue
        pinned[canonicalize_name(one.name)] = one.specifier
    return pinned


def check_python(find: Findings, wanted: Wanted) -> None:
    """Whether this is a Python that the project runs on."""
    version = ".".join(map(str, sys.version_info[:3]))
    if wanted.python and not SpecifierSet(wanted.python).contains(version, prereleases=True):
        find.bad(
            f"Python {version} is none of {wanted.python}",
            "make a new environment with another Python",
        )
    else:
        find.good(f"Python {version} ({wanted.python or 'any'} is asked for)")


def check_packages(find: Findings, wanted: Wanted) -> None:
    """Whether the packages are there, and in the versions that are asked for or pinned."""
    lacking = _lacking(wanted.needed, wanted.extras)
    if lacking:
        find.bad(
            f"{counted(len(lacking), 'package')} not as the project needs: {some(lacking, 12)}",
            wanted.command(),
        )
    if wanted.pinned is None:
        find.doubt(
            "versions are compared with what the package needs alone: constraints.txt, the "
            "versions that are tested, is in a checkout of the project and not beside this "
            "installation"
        )
        if not lacking:
            find.good(f"{counted(len(wanted.needed), 'package')} as the project needs")
        return
    there = {name: version for name in wanted.pinned if (version := installed(name))}
    others = [
        f"{name} {version} ({wanted.pinned[name]})"
        for name, version in there.items()
        if not wanted.pinned[name].contains(version, prereleases=True)
    ]
    if others:
        find.doubt(
            f"{len(others)} of {counted(len(there), 'package')} with a version that is not "
            f"constraints.txt's, with which everything is tested: {some(others, 12)}",
            wanted.command(),
        )
    elif not lacking:
        find.good(f"{counted(len(there), 'package')} in the versions of constraints.txt")


def check_extras(find: Findings, wanted: Wanted) -> None:
    """Which extras are installed; each that is not, with the command."""
    missing = {name: _lacking(needs, wanted.extras) for name, needs in wanted.extras.items()}
    if whole := [name for name, lacking in missing.items() if not lacking]:
        find.good(f"extras installed: {', '.join(whole)}")
    for name, lacking in missing.items():
        if lacking:
            find.doubt(
                f"the extra {name} ({EXTRAS[name]}) is not installed: {some(lacking, 12)}",
                wanted.command(name),
            )


def installed(name: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return metadata.version(name) or None
    except metadata.PackageNotFoundError:
        return None


def _lacking(needs: list[Requirement], extras: dict[str, list[Requirement]]) -> list[str]:
    """What of `needs` is not there, or in another version."""
    lacking = []
    for one in needs:
        if canonicalize_name(one.name) == PROJECT:
            for extra in sorted(one.extras):
                lacking += _lacking(extras.get(extra, []), extras)
            continue
        if one.marker is not None and "extra" not in str(one.marker) and not one.marker.evaluate():
            continue
        version = installed(one.name)
        if version is None:
            lacking.append(f"{one.name} is missing")
        elif not one.specifier.contains(version, prereleases=True):
            lacking.append(f"{one.name} {version} is not {one.specifier}")
    return lacking
