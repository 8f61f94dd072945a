"""Hostile packs: read correctly, or refused with the name of the damaged file."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.helpers.fault_table import Fault
from tests.helpers.fuzz.harness import Outcome, Watched
from tests.helpers.fuzz.mutations import flipped, spoil
from tests.helpers.fuzz.text.cases import leaves, texts_of_json

FAULT = "hostile pack"
FILES = ("pack.json", "index.csv", "images.npy")
# of a file of version 1.0 (numpy.lib.format)
HEADER = 128


@pytest.fixture(scope="module")
def sound(watched: Watched) -> dict[str, bytes]:
    """Files of a valid pack."""
    assert watched.call("pack_targets:make", [[]])[0].kind == "ok"
    return {name: (watched.out / "sound" / name).read_bytes() for name in FILES}


def outcomes(
    watched: Watched,
    fault: Fault,
    sound: dict[str, bytes],
    changes: Sequence[dict[str, bytes]],
    *,
    seal: bool = True,
) -> list[Outcome]:
    """How the use of the sound pack ends with each of these changes; where `seal`, those of the
    index with its checksum."""
    fault(FAULT, len(changes))
    folders = [watched.out / f"pack {number}" for number in range(len(changes))]
    for folder, changed in zip(folders, changes, strict=True):
        folder.mkdir()
        files = sound | changed
        if seal and "index.csv" in changed:
            digest = hashlib.sha256(files["index.csv"]).hexdigest()
            facts = json.loads(files["pack.json"]) | {"index_sha256": digest}
            files["pack.json"] = json.dumps(facts).encode()
        for file, data in files.items():
            (folder / file).write_bytes(data)
    ended = watched.call("pack_targets:use", [[str(folder)] for folder in folders])
    for folder in folders:
        shutil.rmtree(folder)
    return ended


def check_refused(ended: list[Outcome]) -> None:
    assert [one for one in ended if one.kind != "refused"] == []


@pytest.mark.parametrize("seal", [False, True], ids=["damaged", "with its checksum"])
def test_every_byte(
    watched: Watched, fault: Fault, soak: bool, sound: dict[str, bytes], seal: bool
) -> None:
    (whole,) = outcomes(watched, fault, sound, [{}])
    assert whole.kind == "ok", whole.text
    changes = []
    for name, data in sound.items():
        length = HEADER if name == "images.npy" else len(data)
        for mask in (0x01, 0x20, 0xFF) if soak else (0x01,):
            places = range(0, length, 1 if soak else length // 12)
            changes += [{name: flipped(data, at, mask)} for at in places]
    ended = outcomes(watched, fault, sound, changes, seal=seal)
    assert [one for one in ended if not one.good] == []


def test_a_file_that_was_cut_is_refused(
    watched: Watched, fault: Fault, soak: bool, sound: dict[str, bytes]
) -> None:
    changes = []
    for name, data in sound.items():
        # the last byte is a line break
        size = len(data) - (name == "pack.json")
        changes += [{name: data[:at]} for at in range(0, size, 1 if soak else size // 6)]
    check_refused(outcomes(watched, fault, sound, changes, seal=False))


@pytest.mark.parametrize("name", FILES)
def test_a_spoiled_file(
    watched: Watched, fault: Fault, soak: bool, sound: dict[str, bytes], name: str
) -> None:
    numbers = range(400 if soak else 15)
    changes = [{name: spoil(sound[name], number, reach=300)} for number in numbers]
    assert [one for one in outcomes(watched, fault, sound, changes) if not one.good] == []


def npy(header: str, body: bytes = bytes(112)) -> bytes:
    """A .npy file with this header."""
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + body


def test_arrays_with_wrong_headers(watched: Watched, fault: Fault, sound: dict[str, bytes]) -> None:
    whole = "{'descr': '|u1', 'fortran_order': False, 'shape': (7, 4, 4), }"
    others = {
        "(7, 4, 4)": ("(8, 4, 4)", "(7, 4)", "()", "(-7, 4, 4)", f"({2**40}, {2**40}, 4)"),
        "'|u1'": ("'|O'", "'<f8'", "'|V1'", "[('a', '|O')]", "None", "'|u1', 'x': 1"),
        "False": ("True", "1", "__import__('os')", "[].__class__"),
        whole: ("", "[]", "(" * 5_000, "-" * 9_000 + "1", "{'a':" * 1_500, "9" * 9_000),
    }
    files = [npy(whole.replace(part, one)) for part, ones in others.items() for one in ones]
    files += [b"\x80\x04\x95" + bytes(200), b"PK\3\4" + bytes(200)]
    files += [sound["images.npy"].replace(b"NUMPY\1\0", b"NUMPY\x09\0")]
    files += [b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(200), sound["images.npy"] + bytes(16)]
    check_refused(outcomes(watched, fault, sound, [{"images.npy": data} for data in files]))


def test_indices_that_do_not_match_the_file(
    watched: Watched, fault: Fault, sound: dict[str, bytes]
) -> None:
    whole = sound["index.csv"].decode()
    lines = whole.splitlines(keepends=True)
    names = ("../../etc/passwd", "/etc/passwd", "sub/../../x.png", "sub/1.png", "", "sub/\0.png")
    cells = (",x,0,", f",{10**30},0,", ",0,0,1,2,3,", ',0,0,"', ",0,0," + "," * 100_000)
    texts = [whole.replace("sub/0.png", name) for name in names]
    texts += [whole.replace(",0,0,", cell) for cell in cells]
    texts += [whole + lines[1].replace("0.png", "x.png"), "".join(lines[:-2]), lines[0], ""]
    texts += [whole.replace('"modified"', '"name"')]
    check_refused(outcomes(watched, fault, sound, [{"index.csv": one.encode()} for one in texts]))


def test_facts_that_do_not_match_the_tensors(
    watched: Watched, fault: Fault, soak: bool, sound: dict[str, bytes]
) -> None:
    whole = json.loads(sound["pack.json"])
    texts = [json.dumps(changed).encode() for changed in leaves(whole)][:: 1 if soak else 29]
    texts += list(texts_of_json(whole))[:: 1 if soak else 5]
    texts += [sound["pack.json"].replace(b"{", b'{"size": 4,', 1)]
    ended = outcomes(watched, fault, sound, [{"pack.json": text} for text in texts])
    assert [one for one in ended if not one.good] == []


def test_parts_that_are_not_there(watched: Watched, fault: Fault, sound: dict[str, bytes]) -> None:
    fault(FAULT, 2)
    for parts in (2, 2**40):
        folder = watched.out / f"in {parts}"
        folder.mkdir()
        facts = json.loads(sound["pack.json"]) | {"parts": parts}
        (folder / "pack.parts.json").write_text(json.dumps(facts))
        check_refused(watched.call("pack_targets:use", [[str(folder)]]))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_special_file(
    watched: Watched, fault: Fault, sound: dict[str, bytes], name: str
) -> None:
    makes: dict[str, Callable[[Path], None]] = {
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "itself": lambda path: path.symlink_to(path),
    }
    fault(FAULT, len(makes))
    for kind, make in makes.items():
        folder = shutil.copytree(watched.out / "sound", watched.out / f"{kind} {name}")
        (folder / name).unlink()
        make(folder / name)
        check_refused(watched.call("pack_targets:use", [[str(folder)]]))
