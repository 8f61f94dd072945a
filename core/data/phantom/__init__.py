"""`python -m core.data.phantom`: synthetic chest X-rays with known findings."""
