"""Batch file of docs/clusters.md."""

import re

from tests.helpers.training.small_run import ROOT


def batch_file() -> str:
    """The example of that page."""
    (found,) = re.findall(
        r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "docs/clusters.md").read_text(), re.DOTALL
    )
    return found
