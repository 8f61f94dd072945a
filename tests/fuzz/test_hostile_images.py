"""Hostile image files: read correctly, or refused by name."""

import os

import pytest

from tests.helpers.fault_table import Fault
from tests.helpers.fuzz.dicom_bytes import sound_dicom
from tests.helpers.fuzz.harness import Watched
from tests.helpers.fuzz.image_files import other_files, sound_images, unwanted_images

FAULT, DICOM = "hostile image", "hostile DICOM file"
SOUND_FILES = {FAULT: sound_images(), DICOM: sound_dicom()}
# bombs that take seconds to make
SLOW = {"bits.tif", "chunks.png", "few scans.jpg", "filled.jpg", "large.png", "largest.png"} | {
    *("largest float.tif", "markers.jpg", "more pixels.png", "much more pixels.png", "scans.tif"),
    *("samples.tif", "bomb.png"),
    *("many jpegs.tif", "many deflated.tif", "jpeg scans.tif", "packed.tif"),
}


@pytest.mark.parametrize("kind", SOUND_FILES)
def test_a_file_that_was_cut_loses_no_pixel_in_silence(
    kind: str, watched: Watched, fault: Fault, soak: bool
) -> None:
    """At every fifth length."""
    inputs = [
        [name, length]
        for name, data in SOUND_FILES[kind].items()
        for length in range(0, len(data), 5 if soak else len(data) // 3)
    ]
    fault(kind, len(inputs))
    assert watched.bad("image_targets:cut", inputs) == []
    if kind == DICOM:
        assert watched.bad("image_targets:headers", [[*one, 0] for one in inputs]) == []


@pytest.mark.parametrize("kind", SOUND_FILES)
def test_a_spoiled_file_is_refused_or_shows_something(
    kind: str, watched: Watched, fault: Fault, soak: bool
) -> None:
    inputs = [[name, number] for name in SOUND_FILES[kind] for number in range(150 if soak else 5)]
    fault(kind, len(inputs))
    assert watched.bad("image_targets:spoiled", inputs) == []
    sound = watched.call("image_targets:spoiled", [[name, 0] for name in SOUND_FILES[kind]])
    assert [outcome.text for outcome in sound if outcome.kind != "ok"] == []
    if kind == DICOM:
        headers = [[name, -1, number] for name, number in inputs]
        assert watched.bad("image_targets:headers", headers) == []


def test_bombs_and_files_that_are_not_images(watched: Watched, fault: Fault, soak: bool) -> None:
    files = {name: make for name, make in unwanted_images().items() if soak or name not in SLOW}
    fault(FAULT, len(files))
    for names in (files.keys() - SLOW, *([name] for name in files.keys() & SLOW)):
        paths = [watched.out / name for name in names]
        for path in paths:
            path.write_bytes(files[path.name]())
        assert watched.bad("image_targets:at", [[str(path)] for path in paths]) == []
        for path in paths:
            path.unlink()


def test_another_kind_of_file_is_named(watched: Watched, fault: Fault) -> None:
    paths = [watched.out / name for name in other_files()]
    fault(FAULT, len(paths))
    for path, data in zip(paths, other_files().values(), strict=True):
        path.write_bytes(data)
    outcomes = watched.call("image_targets:at", [[str(path)] for path in paths])
    for path, one in zip(paths, outcomes, strict=True):
        assert one.kind == "refused"
        assert f"{path.name} cannot be read: it is not a PNG, JPEG, TIFF or DICOM file" in one.text


def test_a_missing_or_special_file(watched: Watched, fault: Fault) -> None:
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
        *("two\nlines.png", "\x1b[2J\x1b]0;title\x07.png", "\u202egnp.exe", "a\rb.png"),
        "\udcff.png",
    ]
    fault(FAULT, len(names))
    for name in names:
        (watched.out / name).write_bytes(b"<html>")
    outcomes = watched.call("image_targets:at", [[str(watched.out / name)] for name in names])
    assert [outcome.kind for outcome in outcomes] == ["refused"] * len(names)
