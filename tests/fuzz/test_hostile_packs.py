"""A pack gives the images that its index names, or is refused by the name of the spoiled file."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.fault_table import Fault
from tests.helpers.fuzz.harness import Watched
from tests.helpers.fuzz.text.cases import leaves, texts_of_json

FAULT = "hostile pack"
FILES = ("pack.json", "index.csv", "images.npy")
# of a file of version 1.0 (numpy.lib.format)
HEADER = 128


@pytest.fixture(scope="module", autouse=True)
def made(watched: Watched) -> None:
    assert watched.call("pack_targets:make", [[]])[0].kind == "ok"


def sound(watched: Watched, name: str) -> bytes:
    return (watched.out / "whole_pack" / name).read_bytes()


def pack(watched: Watched, name: str, files: dict[str, bytes], *, seal: bool = True) -> Path:
    """A copy of the sound pack with these files, the index's checksum made to fit."""
    folder = watched.out / name
    folder.mkdir()
    every = {name: sound(watched, name) for name in FILES} | files
    if seal and "pack.json" not in files:
        digest = hashlib.sha256(every["index.csv"]).hexdigest()
        facts = json.loads(every["pack.json"]) | {"index_sha256": digest}
        every["pack.json"] = json.dumps(facts).encode()
    for file, data in every.items():
        (folder / file).write_bytes(data)
    return folder


def tried(watched: Watched, fault: Fault, packs: dict[str, dict[str, bytes]]) -> None:
    """All of these packs are refused."""
    fault(FAULT, len(packs))
    folders = [
        pack(watched, f"made {number}", files) for number, files in enumerate(packs.values())
    ]
    outcomes = watched.call("pack_targets:use", [[str(folder)] for folder in folders])
    for folder in folders:
        shutil.rmtree(folder)
    told = {what: one for what, one in zip(packs, outcomes, strict=True) if one.kind != "refused"}
    assert told == {}


def test_the_sound_pack_is_used(watched: Watched, fault: Fault) -> None:
    fault(FAULT, 1)
    (outcome,) = watched.call("pack_targets:use", [[str(watched.out / "whole_pack")]])
    assert outcome.kind == "ok", outcome.text


@pytest.mark.parametrize("seal", [False, True], ids=["damaged", "with its checksum"])
def test_every_byte(watched: Watched, fault: Fault, soak: bool, seal: bool) -> None:
    inputs: list[list[Any]] = []
    for name in FILES:
        length = HEADER if name == "images.npy" else len(sound(watched, name))
        step = 1 if soak else length // 12
        masks = (0x01, 0x20, 0xFF) if soak else (0x01,)
        inputs += [[name, at, mask, seal] for mask in masks for at in range(0, length, step)]
    fault(FAULT, len(inputs))
    assert watched.bad("pack_targets:flip", inputs) == []


def test_a_file_that_was_cut_is_refused(watched: Watched, fault: Fault, soak: bool) -> None:
    inputs = []
    for name in FILES:
        # the last byte is a line break
        size = len(sound(watched, name)) - (name == "pack.json")
        inputs += [[name, at] for at in range(0, size, 1 if soak else size // 6)]
    fault(FAULT, len(inputs))
    outcomes = watched.call("pack_targets:cut", inputs)
    assert [one.text for one in outcomes if one.kind != "refused"] == []


@pytest.mark.parametrize("name", FILES)
def test_a_spoiled_file(watched: Watched, fault: Fault, soak: bool, name: str) -> None:
    inputs = [[name, number] for number in range(400 if soak else 15)]
    fault(FAULT, len(inputs))
    assert watched.bad("pack_targets:spoiled", inputs) == []


def npy(header: str, body: bytes = bytes(112)) -> bytes:
    """An array whose header is this text."""
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + body


def test_arrays_that_lie(watched: Watched, fault: Fault) -> None:
    whole = "{'descr': '|u1', 'fortran_order': False, 'shape': (7, 4, 4), }"
    others = {
        "(7, 4, 4)": ("(8, 4, 4)", "(7, 4)", "()", "(-7, 4, 4)", f"({2**40}, {2**40}, 4)"),
        "'|u1'": ("'|O'", "'<f8'", "'|V1'", "[('a', '|O')]", "None", "'|u1', 'x': 1"),
        "False": ("True", "1", "__import__('os')", "[].__class__"),
        whole: ("", "[]", "(" * 5_000, "-" * 9_000 + "1", "{'a':" * 1_500, "9" * 9_000),
    }
    headers = [whole.replace(part, value) for part, values in others.items() for value in values]
    files = {f"{number} {header[:60]}": npy(header) for number, header in enumerate(headers)}
    files["objects"] = b"\x80\x04\x95" + bytes(200)
    files["zip"] = b"PK\3\4" + bytes(200)
    files["version"] = sound(watched, "images.npy").replace(b"NUMPY\1\0", b"NUMPY\x09\0")
    files["long header"] = b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(200)
    files["more"] = sound(watched, "images.npy") + bytes(16)
    tried(watched, fault, {what: {"images.npy": data} for what, data in files.items()})


def test_indices_that_lie(watched: Watched, fault: Fault) -> None:
    whole = sound(watched, "index.csv").decode()
    lines = whole.splitlines(keepends=True)
    texts = {
        "a name that leaves": whole.replace("sub/0.png", "../../etc/passwd"),
        "an absolute one": whole.replace("sub/0.png", "/etc/passwd"),
        "one that leaves within": whole.replace("sub/0.png", "sub/../../x.png"),
        "a name twice": whole.replace("sub/0.png", "sub/1.png"),
        "none": whole.replace("sub/0.png", ""),
        "NUL": whole.replace("sub/0.png", "sub/\0.png"),
        "longer": whole + lines[1].replace("0.png", "x.png"),
        "shorter": "".join(lines[:-2]),
        "no rows": lines[0],
        "numbers": whole.replace(",0,0,", ",x,0,"),
        "large numbers": whole.replace(",0,0,", f",{10**30},0,"),
        "columns": whole.replace('"modified"', '"name"'),
        "more columns": whole.replace(",0,0,", ",0,0,1,2,3,"),
        "a quote": whole.replace(",0,0,", ',0,0,"'),
        "wide": whole.replace(",0,0,", ",0,0," + "," * 100_000),
        "empty": "",
    }
    tried(watched, fault, {what: {"index.csv": text.encode()} for what, text in texts.items()})


def test_facts_that_lie(watched: Watched, fault: Fault, soak: bool) -> None:
    whole = json.loads(sound(watched, "pack.json"))
    texts = [json.dumps(changed).encode() for changed in leaves(whole)][:: 1 if soak else 29]
    texts += list(texts_of_json(whole))[:: 1 if soak else 5]
    texts += [sound(watched, "pack.json").replace(b"{", b'{"size": 4,', 1)]
    fault(FAULT, len(texts))
    for number, text in enumerate(texts):
        pack(watched, f"said {number}", {"pack.json": text})
    folders = [watched.out / f"said {number}" for number in range(len(texts))]
    assert watched.bad("pack_targets:use", [[str(folder)] for folder in folders]) == []


def test_parts_that_are_not_there(watched: Watched, fault: Fault) -> None:
    facts = json.loads(sound(watched, "pack.json"))
    for parts in (2, 2**40):
        fault(FAULT, 1)
        folder = watched.out / f"in {parts}"
        folder.mkdir()
        (folder / "pack.parts.json").write_text(json.dumps(facts | {"parts": parts}))
        (outcome,) = watched.call("pack_targets:use", [[str(folder)]])
        assert outcome.kind == "refused", outcome


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "itself"])
def test_what_is_no_file(watched: Watched, fault: Fault, name: str, kind: str) -> None:
    fault(FAULT, 1)
    folder = pack(watched, f"{kind} {name}", {})
    path = folder / name
    path.unlink()
    makes: dict[str, Callable[[], None]] = {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "device": lambda: path.symlink_to("/dev/zero"),
        "itself": lambda: path.symlink_to(path),
    }
    makes[kind]()
    (outcome,) = watched.call("pack_targets:use", [[str(folder)]])
    assert outcome.kind == "refused", outcome
