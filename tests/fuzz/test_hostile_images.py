"""An image file is read rightly or refused by its name, whatever is in it and wherever it leads."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.helpers.data.tiff_files import tiff
from tests.helpers.fault_table import Fault
from tests.helpers.fuzz.harness import Watched
from tests.helpers.fuzz.image_files import small_ones, unwanted_images, whole_images
from tests.helpers.fuzz.mutations import chunk, png

FAULT = "hostile image"
# bombs that take seconds to make
SLOW = {"bits.tif", "chunks.png", "few scans.jpg", "filled.jpg", "large.png", "largest.png"} | {
    *("largest float.tif", "markers.jpg", "more pixels.png", "much more pixels.png", "scans.tif"),
    *("samples.tif", "samples16.tif", "bomb.png"),
    *("many jpegs.tif", "many deflated.tif", "jpeg scans.tif", "packed.tif"),
}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with Watched(tmp_path_factory.mktemp("images"), ["image_targets"]) as one:
        yield one


def test_whole_files_are_read_as_they_are(watched: Watched, fault: Fault) -> None:
    inputs = [[name] for name in whole_images()]
    fault(FAULT, len(inputs))
    outcomes = watched.call("image_targets:whole", inputs)
    assert [outcome.text for outcome in outcomes if outcome.kind != "ok"] == []


def test_a_file_that_was_cut_loses_no_pixel_in_silence(
    watched: Watched, fault: Fault, soak: bool
) -> None:
    """At every fifth length."""
    sizes = {name: len(whole_images()[name].data) for name in small_ones()}
    inputs = [
        [name, length]
        for name, size in sizes.items()
        for length in range(0, size, 5 if soak else size // 3)
    ]
    fault(FAULT, len(inputs))
    assert watched.bad("image_targets:cut", inputs) == []


def test_a_spoiled_file_is_refused_or_shows_something(
    watched: Watched, fault: Fault, soak: bool
) -> None:
    inputs = [[name, number] for name in small_ones() for number in range(150 if soak else 5)]
    fault(FAULT, len(inputs))
    assert watched.bad("image_targets:spoiled", inputs) == []


def test_bombs_and_what_is_no_image(watched: Watched, fault: Fault, soak: bool) -> None:
    for name, make in unwanted_images().items():
        if name in SLOW and not soak:
            continue
        path = watched.out / name
        path.write_bytes(make())
        fault(FAULT, 1)
        assert watched.bad("image_targets:at", [[str(path)]]) == []
        path.unlink()


@pytest.mark.parametrize(
    "name", ["gif.png", "eps.png", "pdf.png", "svg.png", "objects.png", "zip.png"]
)
def test_another_kind_of_file_is_named(watched: Watched, name: str) -> None:
    (watched.out / name).write_bytes(unwanted_images()[name]())
    (outcome,) = watched.call("image_targets:at", [[str(watched.out / name)]])
    assert outcome.kind == "refused"
    assert f"{name} cannot be read: it is no PNG, JPEG, TIFF or DICOM file" in outcome.text


def test_what_is_no_file(watched: Watched, fault: Fault) -> None:
    os.mkfifo(watched.out / "pipe.png")
    (watched.out / "folder.png").mkdir()
    for name, target in (("zero.png", "/dev/zero"), ("gone.png", "/nowhere"), ("me.png", "me.png")):
        (watched.out / name).symlink_to(target)
    with (watched.out / "sparse.png").open("wb") as file:
        file.truncate(2**40)
    names = ["pipe.png", "folder.png", "zero.png", "gone.png", "me.png", "sparse.png"]
    fault(FAULT, len(names))
    outcomes = watched.call("image_targets:at", [[str(watched.out / name)] for name in names])
    assert [outcome.kind for outcome in outcomes] == ["refused"] * len(names)


def test_a_name_that_would_steer_the_terminal(watched: Watched, fault: Fault) -> None:
    names = [
        "two\nlines.png",
        "\x1b[2J\x1b]0;title\x07.png",
        "\u202egnp.exe",
        "a\rb.png",
        "\udcff.png",
    ]
    fault(FAULT, len(names))
    for name in names:
        (watched.out / name).write_bytes(b"<html>")
    outcomes = watched.call("image_targets:at", [[str(watched.out / name)] for name in names])
    assert [outcome.kind for outcome in outcomes] == ["refused"] * len(names)


# --- made by the rules of the format, of anything -----------------------------------------------

NUMBERS = st.one_of(
    st.integers(0, 40), st.sampled_from([255, 256, 2**15, 2**16 - 1, 2**16, 2**31, 2**32 - 1])
)
BODIES = st.one_of(st.binary(max_size=60), st.just(bytes(900)))
KINDS = st.sampled_from([b"PLTE", b"tRNS", b"acTL", b"fcTL", b"zTXt", b"iCCP", b"eXIf", b"ABCD"])
PNGS = st.builds(
    lambda width, height, depth, colour, body, more: png(width, height, depth, colour, body, *more),
    NUMBERS,
    NUMBERS,
    st.sampled_from([0, 1, 2, 4, 8, 16, 255]),
    st.integers(0, 7),
    BODIES,
    st.lists(st.builds(chunk, KINDS, BODIES), max_size=3),
)
TAGS = st.sampled_from(
    [
        *(254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322),
        *(323, 324, 325, 330, 338, 339, 347, 530, 34665),
    ]
)
# as a sound file has them; what is drawn comes over it
SOUND = {256: 9, 257: 9, 258: 8, 259: 1, 262: 1, 277: 1}
TIFFS = st.builds(
    lambda tags, body: tiff(SOUND | tags, body), st.dictionaries(TAGS, NUMBERS, max_size=5), BODIES
)
BATCH = 25
# nothing is kept between runs, and what fails is told without a search for something smaller
RULES = settings(
    database=None, deadline=None, derandomize=True, phases=[Phase.generate], print_blob=False
)


@pytest.mark.parametrize("files", [PNGS, TIFFS], ids=["PNG", "TIFF"])
def test_files_of_any_content(
    watched: Watched, fault: Fault, soak: bool, files: st.SearchStrategy[bytes]
) -> None:
    examples = 40 if soak else 2
    fault(FAULT, BATCH * examples)

    @settings(RULES, max_examples=examples)
    @given(st.lists(files, min_size=BATCH, max_size=BATCH))
    def look(batch: list[bytes]) -> None:
        paths = [watched.out / f"{number}.bin" for number in range(len(batch))]
        for path, data in zip(paths, batch, strict=True):
            Path(path).write_bytes(data)
        assert watched.bad("image_targets:at", [[str(path)] for path in paths]) == []

    look()
