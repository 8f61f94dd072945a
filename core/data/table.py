"""Old name of `core.data.tables` (version 0.1)."""

import warnings

from core.data.tables import LabelTable, read_ids, read_table

__all__ = ["LabelTable", "read_ids", "read_table"]

warnings.warn(
    "core.data.table is now core.data.tables: change the import, the old name goes in 0.3",
    DeprecationWarning,
    stacklevel=2,
)
