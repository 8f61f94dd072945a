"""The files of an image folder, found by one scan, and matched to the identifiers of a CSV."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from core.data.images.collection import Images
from core.data.images.dicom.header import is_dicom
from core.data.images.pack_format import Pack, is_pack, open_packs
from core.errors import UserError, list_first

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".ima")
# of what lies beside images, maybe a report for each: these are not opened to look for DICOM
_NO_IMAGES = (".txt", ".csv", ".tsv", ".json", ".xml", ".html", ".md", ".gz", ".zip", ".npy")


def list_folder(folder: Path) -> tuple[list[str], list[Pack]]:
    """The names of the files below a folder, or of the images of a pack, and that pack's parts."""
    if not is_pack(folder):
        return scan_folder(folder), []
    packs = open_packs(folder)
    return [name for pack in packs for name in pack.index["name"]], packs


def images_among(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the names of files below `folder` that are images: by their ending, and DICOM of
    any other ending, or without one, by its content; without the folder's index, DICOMDIR."""

    def is_image(path: str) -> bool:
        name = _name(path).lower()
        is_other = name.startswith("dicomdir") or name.endswith(_NO_IMAGES)
        by_ending = name.endswith(IMAGE_ENDINGS)
        return by_ending or (not is_other and is_dicom(os.path.join(folder, path)))

    return [name for name in names if is_image(name)]


def scan_folder(folder: Path) -> list[str]:
    """All files below the folder, as paths relative to it with "/" between their parts.

    Hidden entries and __MACOSX are left out. A link to a folder is followed, each target once.
    Raises UserError where it, or a folder below it, is not there or cannot be read.
    """
    files: list[str] = []
    followed = {os.path.realpath(folder)}
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(os.path.join(folder, inside) if inside else folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    if entry.is_file():
                        files.append(inside + entry.name)
                    elif entry.is_dir():
                        target = os.path.realpath(entry.path) if entry.is_symlink() else ""
                        if target not in followed:
                            waiting.append(f"{inside}{entry.name}/")
                        followed |= {target} - {""}
        except OSError as error:
            remedy = {
                FileNotFoundError: "does not exist: name the folder of the images",
                NotADirectoryError: "is not a folder: name the folder of the images",
            }.get(type(error), f"cannot be read: {error.strerror}")
            raise UserError(f"The image folder {error.filename} {remedy}.") from None
    return files


def match_images(identifiers: Sequence[str], folder: Path) -> Images:
    """Each identifier's file below the folder, or its image in a pack.

    An identifier is matched, in this order, by its path relative to the folder; by that path
    without its leading folders ("CheXpert-v1.0-small/train/..."); by a file name that occurs once
    among the files and once among the identifiers (NIH's "images_001/images/..."); then by the same
    three with the ending of an image added; and then by all of these without white space around a
    file's name. A backslash separates folders as "/" does. Only files that the scan found are
    returned, and none twice. Raises UserError for files that are missing, ambiguous or named twice,
    and as `list_folder` does.
    """
    files, packs = list_folder(folder)
    known = set(files)
    matches = {name: name for name in identifiers if name in known}
    missing = {name: name.replace("\\", "/") for name in identifiers if name not in known}
    names = Counter(_name(name.replace("\\", "/")) for name in identifiers if missing)
    for key in (str, strip_ending, _stripped, lambda path: strip_ending(_stripped(path))):
        if missing:
            matches |= _match(missing, files, key, names, folder)
            missing = {name: path for name, path in missing.items() if name not in matches}
    if missing:
        holds = f"holds {len(files):,} files, such as {min(files)}" if files else "is empty"
        raise UserError(
            f"{len(missing):,} of {len(identifiers):,} images have no file in {folder}: "
            f"{list_first(list(missing))}. That folder {holds}.{_similar(missing, files)}"
        )
    owners: dict[str, str] = {}
    for name in identifiers:
        other = owners.setdefault(matches[name], name)
        if other != name:
            raise UserError(
                f"Images '{other}' and '{name}' are the same file in {folder}: {matches[name]}."
            )
    return Images.in_folder(folder, [matches[name] for name in identifiers], packs)


def _match(
    identifiers: dict[str, str],
    files: Sequence[str],
    key: Callable[[str], str | None],
    names: Counter[str],
    folder: Path,
) -> dict[str, str]:
    """Match identifiers (and their paths) with `key(file)`, which is None for one left out."""
    keyed = [(path, file) for file in files if (path := key(file)) is not None]
    by_path = _index(keyed)
    by_name = _index([(_name(path), file) for path, file in keyed])
    found = {}
    for identifier, path in identifiers.items():
        parts = path.split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        file = next((by_path[tail] for tail in tails if tail in by_path), None)
        # A file name that several patients share (view1_frontal.jpg) says nothing by itself.
        if file is None and names[parts[-1]] == 1:
            file = by_name.get(parts[-1])
        if isinstance(file, list):
            # One file that is found twice, through a link, is not ambiguous.
            real = {os.path.realpath(os.path.join(folder, one)) for one in file}
            if len(real) > 1:
                raise UserError(
                    f"Image '{identifier}' could be any of {len(real)} files in {folder}: "
                    f"{list_first(sorted(file))}. Give its path in the CSV, or a smaller folder."
                )
            file = file[0]
        if file is not None:
            found[identifier] = file
    return found


def _index(keyed: Sequence[tuple[str, str]]) -> dict[str, str | list[str]]:
    """From each key to its file, or to a list of several: a list for each of 400,000 keys would
    take most of the time and memory."""
    index: dict[str, str | list[str]] = {}
    for key, file in keyed:
        held = index.setdefault(key, file)
        if isinstance(held, list):
            held.append(file)
        elif held != file:
            index[key] = [held, file]
    return index


def _similar(missing: dict[str, str], files: Sequence[str]) -> str:
    """A sentence about the missing images of which a file differs in ending or case only."""

    def stem(path: str) -> str:
        return (strip_ending(_name(path)) or _name(path)).casefold()

    stems = {stem(file): file for file in files}
    found = [(name, stems[stem(path)]) for name, path in missing.items() if stem(path) in stems]
    if not found:
        return ""
    (name, file), count = found[0], len(found)
    return (
        f" {count:,} of them {'has a file' if count == 1 else 'have files'} of another ending or "
        f"case: '{name}' is {file}. Write their names in the CSV as the files are named."
    )


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def strip_ending(path: str) -> str | None:
    """A path without the ending of an image; None where it has no such ending."""
    stem, ending = os.path.splitext(path)
    return stem if ending.lower() in IMAGE_ENDINGS else None


def _stripped(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.strip()
