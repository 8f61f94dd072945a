"""Lookup of image files by the identifiers of a CSV."""

import os
from pathlib import Path

import pytest

from core.data.images.find_files import match_images, scan_folder
from core.errors import UserError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def matched(folder: Path, *identifiers: str) -> list[str]:
    return [os.path.relpath(path, folder) for path in match_images(identifiers, folder).paths]


@pytest.mark.parametrize(
    ("identifier", "file"),
    [
        ("00012.png", "00012.png"),
        ("p1/s1/view1.jpg", "p1/s1/view1.jpg"),
        ("CheXpert-v1.0-small/train/p1/s1/view1.jpg", "p1/s1/view1.jpg"),
        ("./a/b.png", "a/b.png"),
        ("/data/elsewhere/a/b.png", "a/b.png"),
        ("00000001_000.png", "images_001/images/00000001_000.png"),
        ("images/00000001_000.png", "images_001/images/00000001_000.png"),
        ("00012", "00012.png"),
        ("00012", "deep/er/00012.JPG"),
        ("files/p1/00012", "p1/00012.tiff"),
        ("1.2.840.113", "1.2.840.113.jpeg"),
        ("C:\\data\\images\\x.png", "images/x.png"),
        ("images\\x", "images/x.dcm"),
        ("p00000_00.png", " p00000_00.png"),
        ("a/p00000_00", "a/p00000_00.png "),
    ],
)
def test_an_identifier_finds_its_file(tmp_path: Path, identifier: str, file: str) -> None:
    touch(tmp_path, file, "other/unrelated.png")
    assert matched(tmp_path, identifier) == [file]


def test_the_exact_path_takes_precedence_over_a_name_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "sub/a.png", "sub/b.png")
    names = ["sub/b.png", "a.png", "sub/a.png"]
    assert matched(tmp_path, *names) == names


PATIENT_2 = r"1 of 2 images has no file.*patient2.view1\.jpg"


@pytest.mark.parametrize(
    ("files", "identifiers", "sentence"),
    [
        ("one/a.png two/a.png", "a.png", r"'a\.png'.*one/a\.png, two/a\.png"),
        ("a.png a.jpg", "a", r"a\.jpg, a\.png"),
        ("a.png", "a a.png", r"'a' and 'a\.png' are the same file"),
        ("patient1/view1.jpg", "patient1/view1.jpg patient2/view1.jpg", PATIENT_2),
        ("patient1/view1.jpg", "patient1\\view1.jpg patient2\\view1.jpg", PATIENT_2),
        ("a.png ../secret.png", "../secret.png", "no file"),
    ],
)
def test_what_is_ambiguous_or_elsewhere_is_refused(
    tmp_path: Path, files: str, identifiers: str, sentence: str
) -> None:
    folder = tmp_path / "images"
    touch(folder, *files.split())
    with pytest.raises(UserError, match=sentence):
        matched(folder, *identifiers.split())


def test_missing_files_come_in_one_message_with_their_count(tmp_path: Path) -> None:
    touch(tmp_path, "here.png", "sub/a.dcm")
    names = ["here.png", "images/a.JPEG", *(f"gone{number}.png" for number in range(1200))]
    with pytest.raises(UserError) as refusal:
        matched(tmp_path, *names)
    assert str(refusal.value) == (
        f"1,201 of 1,202 images have no file in {tmp_path}: images/a.JPEG, gone0.png, gone1.png "
        "and 1,198 more. That folder holds 2 files, such as here.png. 1 of them has a file of "
        "another extension or case: 'images/a.JPEG' is sub/a.dcm. Write the names of the files in "
        "the CSV. Remove the rows of missing images from the CSV, or give their folder by "
        "--image_dir."
    )


def test_hidden_and_macos_entries_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", ".b.png", ".cache/c.png", "__MACOSX/a.png", "sub/._a.png")
    assert scan_folder(tmp_path) == ["a.png"]


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    touch(tmp_path, "images/sub/a.png", "elsewhere/b.png")
    (tmp_path / "images" / "sub" / "up").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "images" / "more")
    (tmp_path / "images" / "nowhere.png").symlink_to(tmp_path / "not-there.png")
    assert matched(tmp_path / "images", "sub/a.png", "more/b.png") == ["sub/a.png", "more/b.png"]
    with pytest.raises(UserError, match="no file"):
        matched(tmp_path / "images", "nowhere.png")


def test_one_file_reached_twice_through_a_link_is_not_ambiguous(tmp_path: Path) -> None:
    touch(tmp_path, "sub/a.png")
    (tmp_path / "latest").symlink_to(tmp_path / "sub")
    (path,) = match_images(["a.png"], tmp_path).paths
    assert Path(path).samefile(tmp_path / "sub" / "a.png")


def test_folder_that_is_missing_or_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "file.png")
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        scan_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"file\.png is not a folder"):
        scan_folder(tmp_path / "file.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        matched(tmp_path / "empty", "a.png")


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX rights")
@pytest.mark.parametrize("closed", ["images", "images/sub"])
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, closed: str) -> None:
    touch(tmp_path, "images/sub/a.png")
    folder = tmp_path / closed
    ours = [parent for parent in tmp_path.parents if parent.name.startswith(("pytest", "popen"))]
    for parent in (tmp_path, *ours, tmp_path / "images"):
        parent.chmod(0o755)
    folder.chmod(0)
    as_root = os.geteuid() == 0
    try:
        if as_root:
            os.seteuid(65534)
        with pytest.raises(UserError, match=rf"{closed}/? cannot be read: Permission denied"):
            scan_folder(tmp_path / "images")
    finally:
        if as_root:
            os.seteuid(0)
        folder.chmod(0o755)
