"""Atomic replacement of an output folder, without loss of other files."""

import re
from pathlib import Path

import pytest

from core.errors import UserError
from core.io.output_folder import check_folder, write_folder


def fill(folder: Path) -> None:
    (folder / "model.txt").write_text("new")


def nothing() -> None:
    """A check that finds nothing."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_was_there_is_there_again_whatever_ends_it(
    error: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    path.mkdir()
    (path / "model.txt").write_text("old")
    rename = Path.rename
    ended: list[Path] = []

    def stop(self: Path, target: Path) -> Path:
        """Ends the second one, between which nothing is at `path`."""
        if target == path and not ended:
            ended.append(self)
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stop)
    with pytest.raises(UserError if error is OSError else error):
        write_folder(path, fill, nothing)
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
    assert (path / "model.txt").read_text() == "old"
    write_folder(path, fill, nothing)
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
    assert (path / "model.txt").read_text() == "new"


def test_a_file_that_was_put_there_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_folder(path, fill, nothing)

    def check() -> None:
        check_folder(path, [], re.compile("model.txt"), "model", overwrite=True)

    def slowly(folder: Path) -> None:
        fill(folder)
        (path / "notes.txt").write_text("mine")

    check()
    with pytest.raises(UserError, match=r"has other files \(notes.txt\)"):
        write_folder(path, slowly, check)
    assert (path / "notes.txt").read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
