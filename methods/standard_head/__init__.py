"""Pooled features and a two-layer head."""
