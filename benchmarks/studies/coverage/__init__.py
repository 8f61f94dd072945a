"""Coverage of the intervals of AP, AUROC and proportions, by simulation."""
