"""Files that are written whole, files that are not trusted, and output folders."""
