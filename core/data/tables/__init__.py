"""Label tables: one row per image, with its patient, study, view and labels."""

from core.config.data import LabelReading
from core.data.tables.label_table import LabelTable, read_ids
from core.data.tables.load import read_table

__all__ = ["LabelReading", "LabelTable", "read_ids", "read_table"]
