"""Images: finding, decoding, conversion to grey, and the pack format."""
