"""AP, AUROC and calibration error with intervals over patients."""

from core.metrics.evaluation import (
    Evaluation,
    PairedDifference,
    evaluate,
    group_of,
    paired_difference,
)

__all__ = ["Evaluation", "PairedDifference", "evaluate", "group_of", "paired_difference"]
