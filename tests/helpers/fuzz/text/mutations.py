"""Texts spoiled byte by byte, the same for the same seed on every machine."""

import random
import re

TOKENS = [
    *(b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"\0", b"\xef\xbb\xbf", b"\xff", b"\xc3", b" "),
    *(b"\t", b"=cmd|' /C calc'!A0", b"+1", b"-1", b"@SUM(A1)", b"1e400", b"-0", b"nan", b"inf"),
    *(b"1_000", "\uff11".encode(), b"0x1", b"1.0 ", b"True", b"NA", b"null", b"1e5", b"007"),
    *("é".encode(), "e\u0301".encode(), "\u202egnp.".encode(), b"\x1b[2J", b"\x07"),
    *(b"\x1b]0;x\x07", "\u2028".encode(), b"..", b"../../etc/passwd", b"/etc/passwd", b"~"),
    *(b"$HOME", b"C:\\", b"file:///etc/passwd", b"http://localhost/", b"|cmd", b"$(touch x)"),
    *(b"x" * 5000, b"a/", b"<script>", b"{{7*7}}", b"[", b"]", b"{", b"}", b":", b"null", b"true"),
    *(b"1e999", b"9" * 5000, b"--overwrite", b"\\ud800", b"|", b"['a', 'b']", b"[" * 2000, b"'"),
    *(b"\\", b"%s%n", b"$\\frac$", b"ImageID", b"PatientID"),
]


def mutate(data: bytes, seed: int) -> bytes:
    """`data` with one cell or value replaced for an odd seed, one to six changes for an even one;
    as it is with seed 0."""
    chance = random.Random(seed)
    if seed % 2:
        # one cell or value, so that what is behind the first look is reached
        parts = re.split(rb"([,\n:{}\[\]])", data)
        whole = [one for one in (*TOKENS, *parts) if not re.search(rb'[,\n\r"\0\xff]', one)]
        parts[chance.randrange(len(parts) // 2 + 1) * 2] = chance.choice(whole)
        return b"".join(parts)
    for _ in range(chance.choice((1, 1, 2, 3, 6)) if seed else 0):
        data = _changed(data, chance)
    if seed and chance.random() < 0.05:
        data = data[: chance.randrange(len(data) + 1)]
    if seed and chance.random() < 0.05:
        data = data.replace(b"\n", chance.choice((b"\r", b"\r\n", b"\n\n", b"")))
    if seed and chance.random() < 0.03:
        data = data.decode(errors="replace").encode(
            chance.choice(("utf-16", "utf-16-le", "latin-1", "shift-jis", "utf-32")), "ignore"
        )
    return data


def _changed(data: bytes, chance: random.Random) -> bytes:
    at, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    end = min(end, at + chance.choice((1, 4, 40, 4000)))
    piece, token = data[at:end], chance.choice(TOKENS)
    line = chance.choice(data.split(b"\n")) + b"\n"
    flipped = bytes(byte ^ (1 << chance.randrange(8)) for byte in piece)
    several = piece * chance.choice((2, 2, 3, 300))
    noise = chance.randbytes(len(piece))
    new = chance.choice((token + piece, token, flipped, noise, b"", several, piece[::-1], line))
    return data[:at] + new + data[end:]
