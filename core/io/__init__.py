"""Atomic writes, folder locks, safe reading of untrusted files, output folders."""
