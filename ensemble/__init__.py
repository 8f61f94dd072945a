"""Inference and everything after it: ensembles, calibration, scores, heat maps, export, page."""
