"""Rooms: packages import only downwards, and folders stay small."""

import ast
import importlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.training.small_run import ROOT

# each imports those before it
ORDER = (
    *("core.errors", "core.io", "core.runtime", "core.config", "core.metrics", "core.losses"),
    *("core.data.images", "core.data.csv", "core.data.sources", "core.data.tables"),
    *(
        "core.data.pack",
        "core.data.splits",
        "core.data.holdout",
        "core.data.loading",
        "core.data.phantom",
    ),
    *("core.models", "core.trackers", "core.runs", "core.report", "core.training", "core.doctor"),
    *("ensemble.predict", "ensemble.scoring", "ensemble.fitting", "ensemble.averaging"),
    *(
        "ensemble.heatmaps",
        "ensemble.exporting",
        "ensemble.serving",
        "ensemble",
        "methods",
        "benchmarks",
    ),
)
TOP = ("core", "methods", "ensemble", "benchmarks")
# old names of version 0.1, which import what took their place
OLD = {
    "core.data.split": "core.data.splits.folds",
    "core.data.table": "core.data.tables",
}
LARGEST_FOLDER = 15


def modules() -> dict[str, Path]:
    """Every module of the product by its full name."""
    found = {}
    for path in sorted(path for top in TOP for path in (ROOT / top).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Modules of the product that a file imports, inside functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in full]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in TOP)


def room(module: str) -> int:
    """Place in ORDER of the package that a module is in."""
    inside = [name for name in ORDER if module == name or module.startswith(f"{name}.")]
    return ORDER.index(max(inside, key=len))


def test_imports_go_downwards() -> None:
    upwards = [
        f"{name} imports {used}"
        for name in sorted(MODULES.keys() - OLD.keys() - {"core", "core.data"})
        for used in imports(MODULES[name])
        if used != "core" and room(used) > room(name)
    ]
    assert upwards == []


def test_only_the_loader_looks_up_methods_by_name() -> None:
    """An import by name could go upwards unseen."""
    by_name = re.compile("import_module|__import__|runpy|resolve_name")
    found = {name for name, path in MODULES.items() if by_name.search(path.read_text())}
    assert {name for name in found if not name.startswith("benchmarks")} == {"core.models.load"}


def test_a_method_imports_no_other_one() -> None:
    for name in MODULES:
        method = ".".join(name.split(".")[:2])
        if name.startswith("methods.") and name != method:
            used = {one for one in imports(MODULES[name]) if one.startswith("methods")}
            assert {one for one in used if not f"{one}.".startswith(f"{method}.")} == set()


def test_no_library_module_imports_from_a_command() -> None:
    is_command = 'if __name__ == "__main__":'
    commands = {name for name, path in MODULES.items() if is_command in path.read_text()}
    assert {"core.doctor.__main__", "ensemble.infer", "methods.csra_db_cas.train"} <= commands
    users = {name: commands & set(imports(path)) for name, path in MODULES.items()}
    assert {name: found for name, found in users.items() if found} == {}


def test_there_is_no_circle_of_imports() -> None:
    below = {name: set(imports(path)) - {name} for name, path in MODULES.items()}
    while leaves := {name for name, used in below.items() if not used & below.keys()}:
        below = {name: used for name, used in below.items() if name not in leaves}
    assert below == {}


def test_folders_are_small() -> None:
    counts = Counter(path.parent for path in MODULES.values())
    assert {str(folder): count for folder, count in counts.items() if count > LARGEST_FOLDER} == {}


@pytest.mark.parametrize(("old", "new"), OLD.items())
def test_old_names_still_work(old: str, new: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = importlib.reload(importlib.import_module(old))
    assert {one.category for one in caught} == {DeprecationWarning}
    assert {"assign_folds", "read_table"} & set(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is getattr(importlib.import_module(new), name)
