"""Tests, and in `helpers` what several of them use."""
