"""Image files of a folder: one scan, and matching to the identifiers of a CSV."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from core.data.images.collection import Images
from core.data.images.dicom.header import is_dicom
from core.data.images.pack_format import Pack, is_pack, open_packs
from core.errors import UserError, list_first

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom", ".ima")
# common files beside images, which are not opened to look for DICOM
_NO_IMAGES = (".txt", ".csv", ".tsv", ".json", ".xml", ".html", ".md", ".gz", ".zip", ".npy")


def list_folder(folder: Path) -> tuple[list[str], list[Pack]]:
    """File names in a folder, or image names of a pack, and the parts of that pack."""
    if not is_pack(folder):
        return scan_folder(folder), []
    packs = open_packs(folder)
    return [name for pack in packs for name in pack.index["name"]], packs


def images_among(folder: Path, names: Sequence[str]) -> list[str]:
    """Select the image files among `names` in `folder`.

    Images are recognised by file extension; DICOM with any other extension, or none, by content.
    DICOMDIR is left out.
    """

    def is_image(path: str) -> bool:
        name = _name(path).lower()
        is_other = name.startswith("dicomdir") or name.endswith(_NO_IMAGES)
        by_ending = name.endswith(IMAGE_ENDINGS)
        return by_ending or (not is_other and is_dicom(os.path.join(folder, path)))

    return [name for name in names if is_image(name)]


def scan_folder(folder: Path) -> list[str]:
    """List all files in a folder and its sub-folders, as relative paths with "/".

    Hidden entries and __MACOSX are left out. Links to folders are followed, each target once.
    Raises UserError if a folder is missing or cannot be read.
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


def missing_remedy(flag: str = "--image_dir", *, skips: bool = False) -> str:
    """What to do about missing files of the folder `flag`; `skips`: with --on_bad_image skip."""
    only = "; --on_bad_image skip is for unreadable files only" if skips else ""
    return f"Remove the rows of missing images from the CSV, or give their folder by {flag}{only}."


def match_images(identifiers: Sequence[str], folder: Path, remedy: str = "") -> Images:
    """Match each identifier to its file in the folder, or its image in a pack.

    Identifiers are matched in this order:

    - by the path relative to the folder;
    - by that path without leading folders ("CheXpert-v1.0-small/train/...");
    - by a file name that is unique among files and identifiers (NIH's "images_001/images/...");
    - by the same three with an image extension added;
    - by all of these without white space around the file name.

    A backslash is a separator like "/". Only files of the scan are returned, each once. Raises
    UserError for files that are missing (with `remedy`, or `missing_remedy`), ambiguous or
    repeated, and like `list_folder`.
    """
    files, packs = list_folder(folder)
    known = set(files)
    matches = {name: name for name in identifiers if name in known}
    missing = {name: name.replace("\\", "/") for name in identifiers if name not in known}
    names = Counter(_name(name.replace("\\", "/")) for name in identifiers if missing)
    for key in (str, strip_ending, _strip_name, lambda path: strip_ending(_strip_name(path))):
        if missing:
            matches |= _match(missing, files, key, names, folder)
            missing = {name: path for name, path in missing.items() if name not in matches}
    if missing:
        holds = f"holds {len(files):,} files, such as {min(files)}" if files else "is empty"
        has = "has" if len(missing) == 1 else "have"
        raise UserError(
            f"{len(missing):,} of {len(identifiers):,} images {has} no file in {folder}: "
            f"{list_first(list(missing))}. That folder {holds}.{_similar(missing, files)} "
            f"{remedy or missing_remedy()}"
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
    """Match identifiers (and their paths) with `key(file)`; files with key None are left out."""
    keyed = [(path, file) for file in files if (path := key(file)) is not None]
    by_path = _index(keyed)
    by_name = _index([(_name(path), file) for path, file in keyed])
    found = {}
    for identifier, path in identifiers.items():
        parts = path.split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        file = next((by_path[tail] for tail in tails if tail in by_path), None)
        # a file name of several patients (view1_frontal.jpg) is ambiguous
        if file is None and names[parts[-1]] == 1:
            file = by_name.get(parts[-1])
        if isinstance(file, list):
            # a file found twice through a link is not ambiguous
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
    """Map each key to its file, or to a list if there are several.

    A list for each of 400,000 keys would take most of the time and memory.
    """
    index: dict[str, str | list[str]] = {}
    for key, file in keyed:
        held = index.setdefault(key, file)
        if isinstance(held, list):
            held.append(file)
        elif held != file:
            index[key] = [held, file]
    return index


def _similar(missing: dict[str, str], files: Sequence[str]) -> str:
    """Hint about missing images with a file that differs only in extension or case."""

    def stem(path: str) -> str:
        return (strip_ending(_name(path)) or _name(path)).casefold()

    stems = {stem(file): file for file in files}
    found = [(name, stems[stem(path)]) for name, path in missing.items() if stem(path) in stems]
    if not found:
        return ""
    (name, file), count = found[0], len(found)
    return (
        f" {count:,} of them {'has a file' if count == 1 else 'have files'} of another extension "
        f"or case: '{name}' is {file}. Write the names of the files in the CSV."
    )


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def strip_ending(path: str) -> str | None:
    """Path without its image extension; None if it has none."""
    stem, ending = os.path.splitext(path)
    return stem if ending.lower() in IMAGE_ENDINGS else None


def _strip_name(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.strip()
