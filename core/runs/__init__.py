"""Run folders: layout, lock, logs, and the predictions in them."""
