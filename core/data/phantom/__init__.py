"""`python -m core.data.phantom`: procedural chest X-rays with known findings."""
