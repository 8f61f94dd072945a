"""Modules that are imported before the fork: all that commands import late."""

import importlib
import pkgutil
import re
from types import ModuleType

import core.data
import ensemble
import methods

# no fork runs them, and their packages would make each fork heavier
_LEFT_OUT = re.compile(r"core\.doctor\b|ensemble\.(serv|export|explain|heatmaps)")


def import_all() -> None:
    """Import every module of core, methods and ensemble, but for those."""
    for package in (core.data, core, methods, ensemble):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not _LEFT_OUT.match(module.name):
                importlib.import_module(module.name)


def command_module(name: str) -> ModuleType:
    """The module with `main` of a command, a package's `__main__` included."""
    module = importlib.import_module(name)
    return module if hasattr(module, "main") else importlib.import_module(f"{name}.__main__")
