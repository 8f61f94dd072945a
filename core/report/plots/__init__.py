"""The pictures of a report, one file an idea."""
