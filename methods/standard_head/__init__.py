"""Pooled features and a small multi-layer head."""
