"""The command line: flat flags over a JSON file over a preset, and errors as one sentence.

Torch is not imported here: `--help` and a mistyped flag are answered at once.
"""

import argparse
import io
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext, redirect_stderr
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

try:
    import tyro

    from core.config import flat
    from core.errors import UserError, nearest
except KeyboardInterrupt:  # `run`, which ends in the same way, is still to come
    sys.exit(130)

ConfigType = TypeVar("ConfigType")


def parse(
    presets: Mapping[str, Callable[[], ConfigType]],
    *,
    auto: str | None = None,
    arguments: list[str] | None = None,
    description: str | None = None,
) -> ConfigType:
    """Settings from flags over `--config FILE.json` over `--preset`.

    `presets` maps a name to a function that makes a Config; its first entry lends its defaults
    where the preset is "auto" and `auto` does not say which one is meant (in `--help`, and in the
    first pass, before torch can tell whether there is an accelerator). A flag that is wrong ends
    the program with tyro's message and exit code 2; a JSON file that is wrong raises UserError.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    scout = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # without a value they are left for tyro to refuse
    scout.add_argument("--preset", nargs="?")
    scout.add_argument("--config", nargs="?", type=Path)
    early, _ = scout.parse_known_args(arguments)
    from_file = _read_settings(early.config, presets) if early.config else {}
    named = early.preset or from_file.get("preset", "auto")
    preset = auto if named == "auto" and auto else named
    default = presets.get(preset, next(iter(presets.values())))()
    config = _from_flags(default, _as_arguments(from_file) + arguments, description)
    if preset in presets:
        config.preset = preset  # type: ignore[attr-defined]
    return config


def flags(default: ConfigType, description: str | None) -> ConfigType:
    """Settings from the command line over those of `default`: for a program without presets."""
    return _from_flags(default, sys.argv[1:], description)


def _from_flags(default: ConfigType, words: list[str], description: str | None) -> ConfigType:
    _check_choices(default, words)
    tells = process_rank() == 0
    # `console_outputs` does not silence what a Config refuses (tyro 1.0.17)
    with nullcontext() if tells else redirect_stderr(io.StringIO()):
        return tyro.cli(
            type(default),
            args=words,
            default=default,
            description=description,
            console_outputs=tells,
            use_underscores=True,
            config=(tyro.conf.OmitArgPrefixes,),
        )


def _check_choices(config: Any, arguments: list[str]) -> None:
    """Raise UserError with the nearest choice where a flag of few choices has none of them."""
    for name, choices in _choices(config).items():
        scout = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        # without a value it is left for tyro to refuse
        scout.add_argument(f"--{name}", f"--{name.replace('_', '-')}", dest="given", nargs="?")
        given = scout.parse_known_args(arguments)[0].given
        if given is not None and given not in choices:
            raise UserError(f"there is no --{name} '{given}'{nearest(given, choices)}")


def _choices(config: Any) -> dict[str, list[str]]:
    """What the settings of a Config that are a Literal may be, by flag name."""
    hints = get_type_hints(type(config))
    found: dict[str, list[str]] = {}
    for field in fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if is_dataclass(value):
            found |= _choices(value)
        elif get_origin(hint) is Literal:
            found[field.name] = [str(choice) for choice in get_args(hint)]
    return found


def run(main: Callable[[], None]) -> None:
    """Call `main`; what the user can mend is one sentence on stderr and exit code 2.

    Ctrl-C outside of training (which saves its state first) ends with 130, and output that nobody
    reads any more (`| head`) with 141, both in silence.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a log file fills while the run goes on; a file's name may be no UTF-8
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        main()
    except UserError as error:
        if _first_to_report():
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except BrokenPipeError:
        if _stdout_is_read():
            raise
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        # without the name of a file it is no matter of the user's files
        if error.filename is None:
            raise
        print(f"error: {error.filename} cannot be used: {error.strerror}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _stdout_is_read() -> bool:
    """Whether somebody is at the other end; if not, what is left to be written goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    # asked for nothing, it tells errors alone
    if not poll.poll(0):
        return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False


def process_rank() -> int:
    """This process's rank among those of a launcher; 0 without one."""
    return int(os.environ.get("RANK", "0"))


def _first_to_report() -> bool:
    """True in the one process that is to tell the user: whichever saw an error first.

    Before processes are joined they all see the same files, and rank 0 tells.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_initialized():
        return process_rank() == 0
    try:
        store = distributed.distributed_c10d._get_default_store()
        return store.add("user_error", 1) == 1
    except RuntimeError:  # the store went down with a process that told before
        return False


def _read_settings(path: Path, presets: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {path} is no JSON file: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"--config {path} must hold one JSON object of settings by flag name")
    known = flat(next(iter(presets.values()))())
    settings = {name.replace("-", "_"): value for name, value in settings.items()}
    for name, value in settings.items():
        if name not in known:
            raise UserError(f"--config {path}: there is no setting '{name}'{nearest(name, known)}")
        if name in ("config", "overwrite"):
            raise UserError(f"--config {path}: {name} belongs on the command line")
        if value is None and known[name] is not None and not isinstance(known[name], list):
            raise UserError(f"--config {path}: {name} cannot be null")
        if isinstance(known[name], list) and (value is None or isinstance(value, str)):
            # settings that are lists now and were not in older runs
            settings[name] = value = [] if value is None else [value]
        if isinstance(value, list) and not all(_is_item(item) for item in value):
            raise UserError(
                f"--config {path}: {name} holds something that is no number and no plain text"
            )
        for kind, word in ((bool, "true or false"), (list, "a list"), (dict, "an object")):
            if isinstance(value, kind) != isinstance(known[name], kind) and value is not None:
                which = "must be" if isinstance(known[name], kind) else "cannot be"
                raise UserError(f"--config {path}: {name} {which} {word}")
    return settings


def _is_item(item: Any) -> bool:
    """Whether it is one value of a list: text like --overwrite would be read as a flag."""
    return type(item) in (int, float) or (isinstance(item, str) and not item.startswith("-"))


def _as_arguments(settings: Mapping[str, Any]) -> list[str]:
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
