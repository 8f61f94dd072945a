"""Patient-disjoint folds, duplicates, hold-out and official splits."""

from core.data.splits.folds import assign_folds

__all__ = ["assign_folds"]
