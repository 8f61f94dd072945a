"""Batch file of the README."""

import re

from tests.helpers.training.small_run import ROOT


def batch_file() -> str:
    """The README's example."""
    (found,) = re.findall(
        r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    return found
