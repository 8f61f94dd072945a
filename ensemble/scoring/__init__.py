"""Scores of predictions: tables, subgroups, operating points, and the page."""
