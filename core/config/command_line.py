"""Command line: flat flags over a JSON file over a preset, and errors as one sentence.

Torch is not imported here, so that `--help` and a mistyped flag are answered at once.
"""

import argparse
import errno
import io
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, get_origin

try:
    import tyro

    from core.config.settings_file import check_file, earlier_settings, load_settings
    from core.config.values import (
        assign,
        check_together,
        check_values,
        choices_of,
        flat,
        is_choice,
        spell_switches,
        types_of,
    )
    from core.errors import UserError, suggest_name
    from core.runtime.accelerator import has_accelerator
    from core.runtime.log import logger, start_logging
    from core.runtime.signals import exit_on_signal, handle_stops
    from core.runtime.worker_failures import allow_open_files, explain_lost_worker
except KeyboardInterrupt:  # `run`, which handles it later, is not defined yet
    sys.exit(130)

if TYPE_CHECKING:
    from core.runtime.ranks import RankRegistry

ConfigType = TypeVar("ConfigType")
# exit code for output without a reader: 128 + SIGPIPE, which Windows lacks
_NO_READER = 141


def parse(
    presets: Mapping[str, Callable[[], ConfigType]],
    *,
    auto: Callable[[], str] | None = None,
    arguments: list[str] | None = None,
    description: str | None = None,
    read: Callable[[Path], dict[str, Any]] = load_settings,
    public_weights: Callable[[str], dict[str, Any]] | None = None,
) -> ConfigType:
    """Parse flags over `--config FILE.json` over the run in --out_dir over `--preset`.

    `presets` maps a name to a function that creates a Config. Without --preset, `auto` returns the
    name; without `auto`, the first preset is used. `read` reads the JSON file; `public_weights`
    returns the settings of --weights_name, which override the preset. Raises UserError for a value
    out of range, contradicting settings and an invalid file; an invalid flag ends the
    program with a message and exit code 2.
    """
    first = next(iter(presets.values()))
    types = types_of(first())
    words = spell_switches(sys.argv[1:] if arguments is None else arguments, types)
    given = _last_values(words, types)
    settings: dict[str, Any] = {}
    if file := given["config"]:
        settings = check_file(read(Path(file)), types, f"--config {file}")
    preset = given.get("preset") or settings.get("preset") or "auto"
    weights_name = given.get("weights_name") or settings.get("weights_name")
    row = public_weights(weights_name) if public_weights and weights_name else {}
    earlier = {}
    # only a training, which may resume its run folder
    if "overwrite" in types and not {"-h", "--help", "--overwrite"} & {*words}:
        out_dir = given["out_dir"] or settings.get("out_dir") or flat(first())["out_dir"]
        earlier = earlier_settings(Path(out_dir), preset, types)
    settings = earlier | settings
    if preset == "auto":
        preset = settings.get("preset", "auto")
    if auto is not None and {"-h", "--help"} & {*words}:
        preset, description = _preset_of_help(preset, [*presets], description)

    def build(preset: str) -> ConfigType:
        default: Any = presets.get(preset, first)()
        epochs = str(given.get("epochs") or settings.get("epochs", ""))
        if epochs.isdecimal() and hasattr(default, "optim"):
            default.optim.shorten_warmup(int(epochs))
        assign(default, row)
        assign(default, settings)
        return flags(default, description, words)

    config = build(preset)
    # a value that every preset refuses is refused before torch is imported
    if preset == "auto" and auto is not None:
        preset = auto()
        config = build(preset)
    if preset in presets:
        config.preset = preset  # type: ignore[attr-defined]
    try:
        check_together(config)
    except UserError as error:
        if not earlier:
            raise
        raise UserError(
            f"with the settings of the run in --out_dir: {error}; to resume it leave out the flags "
            "that differ from its config.json, or give another --out_dir"
        ) from error
    return config


def _preset_of_help(preset: str, presets: list[str], description: str | None) -> tuple[str, str]:
    """The preset of the defaults in --help, and a description that names it."""
    why = ""
    if preset == "auto":
        preset = "paper" if has_accelerator() else "small"
        why = f", as {'an' if preset == 'paper' else 'no'} accelerator was found"
    others = " or ".join(f"--preset {name} --help" for name in presets if name != preset)
    shown = f"Defaults are those of --preset {preset}{why}; {others} shows the others."
    return preset, f"{(description or '').rstrip()}\n\n{shown}"


def machine_preset() -> str:
    """The default preset of this machine."""
    # late: torch takes seconds
    from core.runtime.fabric import preset_for_this_machine

    return preset_for_this_machine()


def flags(
    default: ConfigType, description: str | None, words: list[str] | None = None
) -> ConfigType:
    """Parse flags over the settings of `default`. Raises UserError for a value out of range."""
    types = types_of(default)
    words = spell_switches(sys.argv[1:] if words is None else words, types)
    for name, texts in _all_values(words, types).items():
        choices = choices_of(types[name])
        several = get_origin(types[name]) is tuple
        for text in (texts if several else texts[:1]) if is_choice(types[name]) else ():
            if text not in ("None", *choices):
                raise UserError(f"there is no --{name} '{text}'{suggest_name(text, choices)}")
    is_first = _first_here()
    # `console_outputs` does not silence an invalid value (tyro 1.0.17)
    with nullcontext() if is_first else redirect_stderr(io.StringIO()):
        config = tyro.cli(
            type(default),
            args=words,
            default=default,
            description=description,
            console_outputs=is_first,
            use_underscores=True,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    check_values(config)
    return config


def _last_values(words: list[str], names: Iterable[str]) -> dict[str, str | None]:
    """The last value of each flag in `names` on a command line; None if it has none."""
    return {name: next(iter(texts), None) for name, texts in _all_values(words, names).items()}


def _all_values(words: list[str], names: Iterable[str]) -> dict[str, list[str]]:
    """All values after the last occurrence of each flag in `names` on a command line."""
    scout = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        flags = f"--{name}", f"--{name.replace('_', '-')}"
        scout.add_argument(*flags, dest=name, nargs="*", default=[])
    return vars(scout.parse_known_args(words)[0])


def run(main: Callable[[], None]) -> None:
    """Call `main`; a UserError becomes one sentence on stderr and exit code 2.

    Ctrl-C, SIGTERM and SIGUSR1 outside of training exit with 130, 143 and 138, output without a
    reader (`| head`) with 141, all silently. If another process of the launch was lost, one of the
    others reports it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # line by line also into a log file; a file's name may not be valid UTF-8
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    start_logging(is_main=_first_here())
    allow_open_files()
    handle_stops(exit_on_signal)
    explained = True
    try:
        main()
        if sys.stdout is not None:
            sys.stdout.flush()
        explained = False
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit:
        # a launcher ends the other processes when one ends
        if (registry := _registry()) and registry.has_lost_sibling():
            explained = _print(registry.describe_loss())
        raise
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not _stdout_is_read():
            sys.exit(_NO_READER)
        registry = _registry()
        if sentence := _sentence_of(error):
            # before the process group is connected, processes of a machine see the same error
            if registry.is_first_to_report() if registry else _first_here():
                _print(sentence)
        elif registry and registry.is_loss(error):
            explained = _print(registry.describe_loss())
        else:
            raise
        sys.exit(2)
    finally:
        # no signal may interrupt the interpreter's exit
        handle_stops(None)
        # remaining loader workers are killed, which PyTorch would report as an error
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _flush(sys.stdout)
        if registry := _registry():
            registry.deregister(explained=explained)


def _sentence_of(error: Exception) -> str | None:
    """The message of an error that the user can fix; None for a defect."""
    if isinstance(error, UserError):
        return str(error)
    if not isinstance(error, (OSError, RuntimeError, MemoryError, ImportError)):
        return None
    if shortage := explain_lost_worker(error):
        return str(shortage)
    if not isinstance(error, OSError):
        return None
    reason = error.strerror or ""
    if error.filename is not None:
        return str(UserError(f"{error.filename} cannot be used: {reason}"))
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return f"the output cannot be written: {reason}; free some space there, then rerun"
    if reason.startswith("No usable temporary directory"):
        return f"{reason}: free some space in one of them, or set TMPDIR to another"
    # without a file name it does not concern the user's files
    return None


def _stdout_is_read() -> bool:
    """Whether standard output has a reader; if not, further output is discarded."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        # with an empty event mask, poll() reports only hang-ups
        if not poll.poll(0):
            return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False


def _flush(stream: TextIO | None) -> None:
    """Flush a stream; on a full disk discard the rest, as the interpreter would fail on it."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _first_here() -> bool:
    """Whether this is the first process of a launch on this machine; True without a launcher."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _print(sentence: str | None) -> bool:
    """Print an error unless it is None; returns whether it was printed."""
    if sentence is not None:
        # stderr may be on a full disk too
        with suppress(OSError):
            logger.error(f"error: {sentence}")
        _flush(sys.stderr)
    return sentence is not None


def _registry() -> "RankRegistry | None":
    """Registry of the ranks, if the process group is initialized."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    # late: not every program imports torch
    from core.runtime.ranks import RankRegistry

    return RankRegistry()
