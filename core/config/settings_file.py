"""Settings in the file of --config, and in the config.json of a resumed run."""

from pathlib import Path
from typing import Any, get_origin

from core.config.earlier_run import SINCE, find_run, in_current_terms
from core.config.values import convert
from core.errors import UserError, escape_control, suggest_name
from core.io.untrusted_files import read_json

# settings of a single start, which a resume does not reuse
_OF_A_START = {"run_folds", "dry_run", "out_dir"}
# the names of a thousand labels
LONGEST_TEXT = 100_000


def load_settings(path: Path) -> dict[str, Any]:
    """Read the file of --config: unchecked values by flag name.

    Raises UserError for an invalid file, and for flags that belong on the command line.
    """
    try:
        settings = read_json(path)
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"--config {path} cannot be used: {error}") from error
    settings = {name.replace("-", "_"): value for name, value in settings.items()}
    for name in ("config", "overwrite"):
        if name in settings:
            raise UserError(f"--config {path}: {name} belongs on the command line")
    return in_current_terms(settings)


def check_file(settings: dict[str, Any], types: dict[str, Any], origin: str) -> dict[str, Any]:
    """Convert JSON values to the `types` of their settings, both by flag name.

    Raises UserError, which starts with `origin`, for an unknown setting or invalid value.
    """
    checked = {}
    for name, value in settings.items():
        if name not in types:
            raise UserError(f"{origin}: there is no setting '{name}'{suggest_name(name, types)}")
        if get_origin(types[name]) is tuple and (value is None or isinstance(value, str)):
            # a list now, a single value in older runs
            value = [] if value is None else [value]
        if not all(map(_is_printable, value if isinstance(value, list) else [value])):
            raise UserError(f"{origin}: --{name} has a control character, or is too long")
        checked[name] = convert(name, value, types[name], f"{origin}: ")
    return checked


def earlier_settings(path: Path, preset: str | None, types: dict[str, Any]) -> dict[str, Any]:
    """Settings, by flag name, of the run in `path` to resume; empty without a run.

    Also empty if its preset is not the given `preset`. Raises UserError as `find_run` does, and if
    its settings do not match `types`.
    """
    run = find_run(path)
    if run is None or preset not in (None, "auto", run.settings.get("preset")):
        return {}
    since = {name: value for name, value in SINCE.items() if name in types}
    found = since | in_current_terms(run.settings)
    settings = {name: value for name, value in found.items() if name not in _OF_A_START}
    try:
        return check_file(settings, types, str(run.path / "config.json"))
    except UserError as error:
        raise UserError(
            f"{error}; it is of another method or version, or was changed: give another --out_dir "
            "(--overwrite deletes that run)"
        ) from error


def _is_printable(item: Any) -> bool:
    """True unless the item is a text with control characters, invalid UTF-8 or excess length."""
    return not isinstance(item, str) or (
        len(item) <= LONGEST_TEXT and item.encode(errors="ignore").decode() == escape_control(item)
    )
