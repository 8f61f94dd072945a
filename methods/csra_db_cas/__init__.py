"""Class-specific residual attention, the Distribution-Balanced loss and class-aware sampling."""
