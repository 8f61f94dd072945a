"""`python -m core.data.pack`: decode a folder of images once into one array."""
