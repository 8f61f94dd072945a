"""Old name of `core.data.splits` (version 0.1)."""

import warnings

from core.data.splits.folds import (
    assign_folds,
    check_disjoint,
    empty_in_fold,
    fold_table,
    read_folds,
    source_table,
    write_folds,
)

__all__ = [
    "assign_folds",
    "check_disjoint",
    "empty_in_fold",
    "fold_table",
    "read_folds",
    "source_table",
    "write_folds",
]

warnings.warn(
    "core.data.split is now core.data.splits: change the import, the old name goes in 0.3",
    DeprecationWarning,
    stacklevel=2,
)
