"""Tables of labels: one row an image, with its patient, study and view."""

from core.data.tables.label_table import LabelTable, read_table

__all__ = ["LabelTable", "read_table"]
