"""`python -m core.data.pack`: decode an image folder once into one memory-mapped array."""
