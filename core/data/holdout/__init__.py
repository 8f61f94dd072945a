"""Hold-out: split of a CSV into a training CSV and one of other patients."""
