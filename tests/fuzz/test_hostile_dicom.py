"""Hostile DICOM files: read correctly, or refused by name.

Whole, cut and spoiled ones are tried in test_hostile_images.py.
"""

import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.helpers.fault_table import Fault
from tests.helpers.fuzz.dicom_bytes import (
    PIXELS,
    built,
    element,
    image,
    items,
    unwanted_dicom,
    wrapped,
)
from tests.helpers.fuzz.harness import Watched

FAULT = "hostile DICOM file"
# bombs that take seconds to make or to refuse
SLOW = {"deflated bomb.dcm", "runs.dcm", "runs of one.dcm", "no ops.dcm", "small runs.dcm"} | {
    *("deep.dcm", "elements.dcm", "all elements.dcm", "bare elements.dcm", "items.dcm"),
    *("fragments.dcm", "deflated bomb without length.dcm"),
    *("implicit windows.dcm", "deflated elements.dcm"),
}


def test_bombs_and_wrong_headers(watched: Watched, fault: Fault, soak: bool) -> None:
    files = {name: make for name, make in unwanted_dicom().items() if soak or name not in SLOW}
    fault(FAULT, len(files))
    for name, make in files.items():
        (watched.out / name).write_bytes(make())
    paths = [[str(watched.out / name)] for name in files]
    assert watched.bad("image_targets:shown", paths) == []
    assert watched.bad("image_targets:header_at", paths) == []
    for (path,) in paths:
        (watched.out / path).unlink()


LIMITS = {
    "elements": (element((8, 8), "CS", b"") * 400_000, "more elements than any image needs"),
    "items": (items(300_000), "more elements than any image needs|No tag to read"),
    "windows": (element((0x28, 0x1050), "UT", b"1\\" * 200_000), r"0028,1050\) has 400,000 bytes"),
}


@pytest.mark.parametrize("what", LIMITS)
def test_what_would_cost_memory_and_time_is_refused(watched: Watched, what: str) -> None:
    hostile, reason = LIMITS[what]
    path = watched.out / f"{what}.dcm"
    path.write_bytes(wrapped(hostile + built(image())[len(wrapped(b"")) :]))
    (outcome,) = watched.call("image_targets:at", [[str(path)]])
    assert outcome.kind == "refused"
    assert re.search(reason, outcome.text)


WORDS = st.one_of(
    st.sampled_from(
        ["nan", "inf", "1e308", "-1e308", "0", "1", "40000", "1e-300", "1\\2", "", "x"]
    ),
    st.floats(width=32).map(str),
)
TEXTS = st.one_of(WORDS, st.text(max_size=12)).map(lambda text: text.encode("utf-8", "replace"))
SHORTS = st.one_of(st.integers(0, 20), st.sampled_from([255, 32768, 65535]))
VALUES = st.one_of(
    st.tuples(st.sampled_from(["DS", "IS", "CS", "LO", "SQ", "UN", "OW"]), TEXTS),
    st.tuples(st.just("US"), SHORTS.map(lambda number: struct.pack("<H", number))),
    st.tuples(st.sampled_from(["US", "OB", "SQ", "UN"]), st.binary(max_size=40)),
    st.just(("", b"")),
)
PLACES = st.sampled_from(
    [(0x28, tag) for tag in (2, 4, 6, 8, 0x10, 0x11, 0x34, 0x100, 0x101, 0x102, 0x103, 0x120)]
    + [(0x28, tag) for tag in (0x121, 0x1050, 0x1051, 0x1052, 0x1053, 0x1056, 0x3000, 0x3010)]
    + [(8, 0x16), (8, 5), (0x10, 0x20), (0x18, 0x5101), PIXELS]
)
BATCH = 25


def test_elements_of_any_content(watched: Watched, fault: Fault, soak: bool) -> None:
    examples = 40 if soak else 2
    fault(FAULT, BATCH * examples)

    rules: dict[str, Any] = {"derandomize": True, "database": None, "deadline": None}

    @settings(max_examples=examples, phases=[Phase.generate], **rules)
    @given(st.lists(st.dictionaries(PLACES, VALUES, max_size=4), min_size=BATCH, max_size=BATCH))
    def look(batch: list[dict]) -> None:
        inputs = [[str(watched.out / f"{number}.dcm")] for number in range(BATCH)]
        for (path,), elements in zip(inputs, batch, strict=True):
            Path(path).write_bytes(built(image(elements)))
        assert watched.bad("image_targets:shown", inputs) == []
        assert watched.bad("image_targets:header_at", inputs) == []

    look()
