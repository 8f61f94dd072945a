"""Images: finding, decoding, greyscale, and the file format of a pack."""
