"""Fitting on out-of-fold predictions: ensemble weights and calibration."""
