"""Prediction: members, augmented copies, merging, calibration, and the CSV."""
