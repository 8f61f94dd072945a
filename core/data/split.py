"""Old name of `core.data.splits` (version 0.1)."""

import warnings

from core.data.splits import assign_folds

__all__ = ["assign_folds"]

warnings.warn(
    "core.data.split is now core.data.splits: change the import, the old name goes in 0.3",
    DeprecationWarning,
    stacklevel=2,
)
