"""The settings of a JSON file, checked, and as the flags that they stand for."""

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.config.earlier_run import SINCE, find_run
from core.config.training import RunConfig, flat
from core.errors import UserError, in_plain_sight, nearest
from core.io.untrusted_files import read_json

# settings of one start, which a later one does not take from the run
_OF_A_START = {"run_folds", "dry_run", "out_dir"}
# how tyro names the group of settings, before what the group itself says
_OF_A_GROUP = re.compile(r"^Error parsing \w+: (?=--)")
# the names of a thousand labels
LONGEST_TEXT = 100_000


def read_settings(path: Path, presets: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The settings in the file of --config, by flag name.

    Raises UserError as `load_settings` and `check_settings` do.
    """
    return check_settings(load_settings(path), presets, f"--config {path}")


def load_settings(path: Path) -> dict[str, Any]:
    """The JSON object in the file of --config, by flag name, its values unchecked.

    Raises UserError where there is none, and for what belongs on the command line.
    """
    try:
        settings = read_json(path)
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"--config {path} cannot be used: {error}") from error
    settings = {name.replace("-", "_"): value for name, value in settings.items()}
    for name in settings:
        if name in ("config", "overwrite"):
            raise UserError(f"--config {path}: {name} belongs on the command line")
    return settings


def check_settings(
    settings: dict[str, Any], presets: Mapping[str, Callable[[], Any]], origin: str
) -> dict[str, Any]:
    """`settings` by flag name, where each has a value of the kind that those of `presets` have.

    Raises UserError, which begins with `origin`, for the first that has not.
    """
    known = flat(next(iter(presets.values()))())
    for name, value in settings.items():
        if name not in known:
            raise UserError(f"{origin}: there is no setting '{name}'{nearest(name, known)}")
        if value is None and known[name] is not None and not isinstance(known[name], list):
            raise UserError(f"{origin}: {name} cannot be null")
        if isinstance(known[name], list) and (value is None or isinstance(value, str)):
            # settings that are lists now and were not in older runs
            settings[name] = value = [] if value is None else [value]
        texts = value if isinstance(value, list) else [value]
        if not all(_is_usable(text) for text in texts if isinstance(text, str)):
            raise UserError(
                f"{origin}: {name} holds a control character, or is longer than settings are"
            )
        if isinstance(value, list) and not all(_is_item(item) for item in value):
            raise UserError(f"{origin}: {name} holds something that is no number and no plain text")
        for kind, word in ((bool, "true or false"), (list, "a list"), (dict, "an object")):
            if isinstance(value, kind) != isinstance(known[name], kind) and value is not None:
                which = "must be" if isinstance(known[name], kind) else "cannot be"
                raise UserError(f"{origin}: {name} {which} {word}")
    return settings


def earlier_settings(presets: Mapping[str, Callable[[], Any]], words: list[str]) -> dict[str, Any]:
    """Settings of the run in --out_dir that a command line of `words` resumes, by flag name.

    They are empty where there is no such run, where it is deleted (--overwrite), and where the
    words name another --preset. Raises UserError as `find_run` does, and where its settings are not
    those of `presets`: it is a run of another method or version.
    """
    own = getattr(next(iter(presets.values()))(), "run", None)
    if not isinstance(own, RunConfig) or "--overwrite" in words:
        return {}
    run = find_run(Path(last_value(words, "out_dir") or own.out_dir))
    if run is None or last_value(words, "preset") not in (None, "auto", run.settings.get("preset")):
        return {}
    settings = {n: value for n, value in (SINCE | run.settings).items() if n not in _OF_A_START}
    try:
        return check_settings(settings, presets, str(run.path / "config.json"))
    except UserError as error:
        raise UserError(
            f"{error}; it is of another method or version, or was changed: give another --out_dir "
            "(--overwrite deletes that run)"
        ) from error


def last_value(words: list[str], name: str) -> str | None:
    """What the flag --name is last given in a command line; None where it has no value there."""
    scout = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    scout.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest="value", nargs="?")
    return scout.parse_known_args(words)[0].value


def _is_usable(text: str) -> bool:
    """Whether it can be printed on a line, and be the name of a file."""
    is_utf8 = text.encode(errors="ignore").decode() == text
    return is_utf8 and in_plain_sight(text) == text and len(text) <= LONGEST_TEXT


def _is_item(item: Any) -> bool:
    """Whether it is one value of a list: text like --overwrite would be read as a flag."""
    return type(item) in (int, float) or (isinstance(item, str) and not item.startswith("-"))


def as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """The settings of a JSON file as flags, so that they are checked as flags are."""
    arguments: list[str] = []
    for name, value in settings.items():
        if isinstance(value, bool):
            arguments.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list):
            arguments += [f"--{name}", *map(str, value)]
        else:
            arguments.append(f"--{name}={value}")
    return arguments


def in_words(refusal: str) -> str:
    """What tyro printed about a value, in a box of several lines, on one line."""
    return _OF_A_GROUP.sub("", _one_line(refusal)).removeprefix("Error parsing ")


def sentence_of_group(refusal: str) -> str:
    """The sentence in tyro's box that a group of settings refused a value with; "" if none did."""
    line = _one_line(refusal)
    return _OF_A_GROUP.sub("", line) if _OF_A_GROUP.match(line) else ""


def _one_line(refusal: str) -> str:
    lines = [line.strip(" │╭╮╰╯") for line in refusal.splitlines()[1:]]
    rule = next((place for place, line in enumerate(lines) if not line.strip("─")), len(lines))
    return " ".join(lines[:rule])
