"""Tables of labels: one row an image, with its patient, study and view."""

from core.config.data import LabelReading
from core.data.tables.label_table import LabelTable, read_ids
from core.data.tables.load import read_table

__all__ = ["LabelReading", "LabelTable", "read_ids", "read_table"]
