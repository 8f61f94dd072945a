"""Digest of an image's decoded pixels, cheap enough for every image that a loader reads."""

import hashlib

import numpy as np

# pixels a side that are looked at, at most
_SIDE = 64


def image_digest(pixels: np.ndarray) -> int:
    """63 bits of a square image, uint8 (S, S), that equal pixels share; 0 for one grey everywhere.

    An even grid of at most 64 x 64 pixels is hashed: 8 us, and the whole of 448 x 448 takes 600.
    """
    step = -(-len(pixels) // _SIDE)
    sample = pixels[::step, ::step].tobytes()
    if sample.count(sample[:1]) == len(sample):
        return 0
    digest = hashlib.blake2b(sample, digest_size=8, person=b"cxr image").digest()
    # torch has no unsigned 64 bits
    return int.from_bytes(digest, "little") >> 1
