"""Patient-disjoint folds."""

from core.data.splits.folds import assign_folds

__all__ = ["assign_folds"]
