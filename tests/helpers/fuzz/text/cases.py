"""Hand-written hostile texts by name."""

import copy
import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PLAIN = b"ImageID,PatientID,Mass,Edema\na.png,p1,1,0\nb.png,p2,0,1\n"
_IDS = [
    *("=cmd|' /C calc'!A0", '"=HYPERLINK(""http://x"",""y"")"', "+1+1", "@SUM(A1)", "NA", "null"),
    *("1e5", "007", "   ", "\uff11\uff12\uff13", "é.png", "e\u0301.png", "\u202egnp.a", "a/", "."),
    *("\x1b[2J\x1b]0;owned\x07", "\x07\x08\x7f", '"a\nb.png"', "a\ufeff.png", "/etc/passwd"),
    *("../../etc/passwd", "..\\..\\x", "~/x", "$HOME/x", "C:\\x", "file:///etc/passwd", "|cmd"),
    *("http://localhost/a.png", "x" * 5000, "{{7*7}}${x}%s%n"),
]
_HEADERS = [
    *("ImageID,PatientID,Mass, Mass ", "ImageID,PatientID,Mass,mass", ",,,"),
    *("ImageID,image_id,Mass,Edema", "ImageID,PatientID,,Edema", 'ImageID,"Patient""ID",M,E'),
    *('ImageID,PatientID,"Ma\nss",Edema', "ImageID,PatientID,\x1b[31mMass,Edema"),
    *("ImageID,PatientID,\u202eMass,Edema", "ImageID,PatientID,=1+1,Edema"),
    *("ImageID,PatientID,<script>alert(1)</script>,Edema", r"ImageID,PatientID,$\frac$,Edema"),
    *("ImageID,PatientID,--overwrite,Edema", f"ImageID,PatientID,{'M' * 200_000},Edema"),
    *("ImageID,\ufeffPatientID,Mass,Edema", 'ImageID,PatientID,"Mass,Edema'),
]
_CELLS = [
    *("1e400", "-0", "nan", "inf", "1_000", "\uff11", "0x1", "1.0 ", "True", "=1", "+1", "-1"),
    *("1,", "", "1" * 5000, "NA", "1e0", "01", "\u0661", "1\u200b", "\x1b[2J", '"1', '1"', '""'),
    *("' '", "1e999999999", "+1.000e0", "1e-400", "TRUE", "\\N", "#N/A", "1;0"),
]


def small() -> Iterator[tuple[str, bytes]]:
    """(name of the file, content)."""
    for number, one in enumerate(_IDS):
        yield f"image {number}.csv", PLAIN.replace(b"a.png", one.encode())
    for number, header in enumerate(_HEADERS):
        yield f"header {number}.csv", header.encode() + b"\n" + PLAIN.split(b"\n", 1)[1]
    for number, cell in enumerate(_CELLS):
        yield f"cell {number}.csv", PLAIN.replace(b"p1,1", f"p1,{cell}".encode())
    for name in ("utf-16", "utf-16-le", "utf-32", "latin-1", "shift-jis", "utf-7", "cp037"):
        text = PLAIN.decode().replace("Mass", "Épanchement").replace("a.png", "胸.png")
        yield f"{name}.csv", text.encode(name, errors="replace")
    yield from {
        "empty.csv": b"",
        "newline.csv": b"\n",
        "header.csv": PLAIN.split(b"\n")[0],
        "mark alone.csv": b"\xef\xbb\xbf",
        "two marks.csv": b"\xef\xbb\xbf\xef\xbb\xbf" + PLAIN,
        "nul.csv": PLAIN.replace(b"p1", b"p\x001"),
        "surrogates.csv": PLAIN.replace(b"a.png", b"\xed\xa0\x80"),
        "overlong.csv": PLAIN.replace(b"a.png", b"\xc0\xaf"),
        "cut in a letter.csv": PLAIN + "é".encode()[:1],
        "carriage returns.csv": PLAIN.replace(b"\n", b"\r"),
        "both.csv": PLAIN.replace(b"\n", b"\r\n", 1).replace(b"p1,1,0\n", b"p1,1,0\r"),
        "tabs and commas.csv": PLAIN.replace(b",", b"\t", 2),
        "lists of nothing.csv": b"Image Index,Finding Labels,Patient ID\na.png,nan,1\nb.png,,2\n",
        "boxes.csv": b"image_id,rad_id,class_name,x_min\na,R1,Mass,1\na,R1,Mass,2\n",
        "ragged.csv": PLAIN + b"c.png,p3\n",
        "long row.csv": PLAIN + b"c.png,p3,1,0,1\n",
        "unclosed.csv": PLAIN.replace(b"a.png", b'"a.png'),
        "half quoted.csv": PLAIN.replace(b"a.png", b'a"b".png'),
        "picture.csv": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20,
        "objects.csv": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "not compressed.csv.gz": PLAIN,
        "cut.csv.gz": gzip.compress(PLAIN * 200)[:-40],
        "wrong sum.csv.gz": gzip.compress(PLAIN)[:-8] + b"12345678",
        "twice.csv.gz": gzip.compress(gzip.compress(PLAIN)),
        "empty.csv.gz": b"",
    }.items()


LARGE_AND_FAST = ("10 MB cell.csv", "10 MB label.csv", "bomb of lines.csv.gz")


def large() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """(name of the file, what makes its content)."""
    header = b"ImageID,Mass,Note\n"
    yield "10 MB cell.csv", lambda: header + b"a,1," + b"x" * 10**7 + b"\nb,0,\n"
    yield "10 MB name.csv", lambda: header + b"x" * 10**7 + b",1,\nb,0,\n"
    yield "10 MB label.csv", lambda: header + b"a," + b"1" * 10**7 + b",\n"
    yield "10 MB header.csv", lambda: b"ImageID," + b"x" * 10**7 + b"\na,1\n"
    yield "100 MB of commas.csv", lambda: b"," * 10**8
    yield "100 MB of commas in a row.csv", lambda: header + b"," * 10**8
    yield "100 MB of quotes.csv", lambda: header + b'"' * 10**8
    yield "header behind a line break.csv", lambda: b'"\n"' + b"," * 10**8
    yield "10,000,000 empty lines.csv", lambda: header + b"\n" * 10**7 + b"a,1,\n"
    yield "60 MB of different cells.csv", _different
    yield "bomb.csv.gz", lambda: _bomb(PLAIN, b"a" * 2**20, 3000)
    yield "bomb of lines.csv.gz", lambda: _bomb(PLAIN, b"\n" * 2**20, 3000)
    yield "bomb of rows.csv.gz", lambda: _bomb(PLAIN, b"a,b,1,0\n" * 2**17, 3000)


def _different() -> bytes:
    rows = (",".join(f"{row * 20 + cell:x}" for cell in range(20)) for row in range(420_000))
    return ("ImageID,Mass," + ",".join(map(str, range(18))) + "\n" + "\n".join(rows)).encode()


def _bomb(start: bytes, block: bytes, times: int) -> bytes:
    """Gigabytes as megabytes: compressed files one after the other are one."""
    return gzip.compress(start) + gzip.compress(block) * times


def special(folder: Path) -> list[Path]:
    """Special files (pipes, devices, folders) with the name of a CSV."""
    made = [
        folder / name for name in ("folder.csv", "pipe.csv", "zeros.csv", "circle.csv", "gone.csv")
    ]
    made[0].mkdir()
    os.mkfifo(made[1])
    made[2].symlink_to("/dev/zero")
    made[3].symlink_to(made[3])
    return [*made, folder / ("n" * 5000), folder / "below\nthe line.csv"]


LEAVES: list[Any] = [
    *(None, True, False, -1, 0, 0.5, 1e308, 5e-324, 10**400, "", "x" * 10**6, [], {}, [[]], [None]),
    *({"a": {}}, "--overwrite", "-1", "a\0b", "\ud800", "../../x", "/etc/passwd", "a\nb\x1b[2J"),
    *("NaN", ["--overwrite"], [1, "a", None], "=1+1", "$(touch x)", "1e999", 10**9, float("nan")),
]


def leaves(document: Any) -> Iterator[Any]:
    """`document` with each of its values, and its parts, replaced by each of LEAVES; without each
    of its keys; and with one more."""
    for path in _paths(document):
        for leaf in LEAVES:
            changed = copy.deepcopy(document)
            _parent(changed, path)[path[-1]] = leaf
            yield changed
        changed = copy.deepcopy(document)
        del _parent(changed, path)[path[-1]]
        yield changed
    yield document | {"surplus": 1}


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, (dict, list)):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(one, (*path, key))


def _parent(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def texts_of_json(good: dict[str, Any]) -> Iterator[bytes]:
    """Invalid JSON texts and JSON of the wrong structure."""
    text = json.dumps(good)
    first = next(iter(good))
    yield from (b"", b"null", b"[]", b"3", b'"x"', b"{}", b"{", text[:-1].encode(), b"\xff\xfe")
    yield from (text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode(), b"\0" + text.encode())
    yield from (b"[" * 10**5, b'{"a":' * 10**5, text.encode() + b"x", text.encode() * 2)
    yield text.encode("latin-1")[:-1] + b', "\xe4": 1}'
    for number in ("1e999", "-1e999", "NaN", "Infinity", "1" * 5000, "1" * 400, "0x1", "01", "1_0"):
        yield f'{text[:-1]}, "{first}": {number}}}'.encode()
        yield f'{{"{first}": {number}, {text[1:]}'.encode()
    yield f'{text[:-1]}, "{first}": {json.dumps(good[first])}}}'.encode()
    yield b" " * 10**8
