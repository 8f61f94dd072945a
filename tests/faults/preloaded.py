"""What forks find imported already: all that commands import late."""

import importlib
import pkgutil
import re

import core.data
import ensemble
import methods

# no fork runs them, and their packages would make each fork heavier
_LEFT_OUT = re.compile(r"core\.doctor\b|ensemble\.(serve|export|explain|maps)")


def import_all() -> None:
    """Import every module of core, methods and ensemble, but for those."""
    for package in (core.data, core, methods, ensemble):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not _LEFT_OUT.match(module.name):
                importlib.import_module(module.name)
