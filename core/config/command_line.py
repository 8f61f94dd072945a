"""The command line: flat flags over a JSON file over a preset, and errors as one sentence.

Torch is not imported here: `--help` and a mistyped flag are answered at once.
"""

import errno
import io
import os
import select
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext, redirect_stderr, redirect_stdout, suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    TextIO,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

try:
    import tyro

    from core.config.settings_file import (
        as_arguments,
        earlier_settings,
        in_words,
        last_value,
        read_settings,
        sentence_of_group,
    )
    from core.errors import UserError, nearest
    from core.runtime.signals import answer_stops, leave
    from core.runtime.worker_failures import allow_open_files, describe_shortage, lost_worker
except KeyboardInterrupt:  # `run`, which ends in the same way, is still to come
    sys.exit(130)

if TYPE_CHECKING:
    from core.runtime.ranks import Roll

ConfigType = TypeVar("ConfigType")
_HELP = {"-h", "--help"}
# exit code where nobody reads the output: 128 + SIGPIPE, which Windows lacks
_UNREAD = 141
# what a file that was opened may meet: a full disk, a quota, a limit, a disk that fails
_OF_A_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def parse(
    presets: Mapping[str, Callable[[], ConfigType]],
    *,
    auto: str | Callable[[], str] | None = None,
    arguments: list[str] | None = None,
    description: str | None = None,
    read: Callable[[Path, Mapping[str, Callable[[], Any]]], dict[str, Any]] = read_settings,
) -> ConfigType:
    """Settings from flags over `--config FILE.json` over an earlier run's over `--preset`.

    The earlier run is the one in --out_dir, which the command resumes. `presets` maps a name to a
    function that makes a Config. Where the preset is "auto", `auto` is its name, or is called for
    it; without `auto`, and for `--help`, the first entry lends its defaults. `read` gives the
    settings of the JSON file for these presets. A flag that is wrong
    ends the program with a message and exit code 2; a JSON file that is wrong raises UserError.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    file = last_value(arguments, "config")
    from_file = as_arguments(read(Path(file), presets)) if file else []
    given = from_file + arguments
    earlier = {} if _HELP & {*arguments} else earlier_settings(presets, given)
    words = as_arguments(earlier) + given
    if earlier:
        _check_together(_default(presets, earlier.get("preset", "auto"), words), words, given)
    preset = last_value(given, "preset") or "auto"
    if preset == "auto":
        preset = earlier.get("preset") or _automatic(presets, auto, words)
    default = _default(presets, preset, words)
    # flags may go before a value of the file that is wrong
    if file and _refusal(default, words) and (refused := _refusal(default, from_file)):
        raise UserError(f"--config {file}: {in_words(refused) or 'it is refused'}")
    config = _from_flags(default, words, description)
    if preset in presets:
        config.preset = preset  # type: ignore[attr-defined]
    return config


def _check_together(default: Any, words: list[str], given: list[str]) -> None:
    """Raise UserError where flags that are sound by themselves contradict the run they resume."""
    refused = _refusal(default, words)
    if refused and not _refusal(default, given):
        raise UserError(
            f"with the settings of the run in --out_dir: {in_words(refused)}; leave what differs "
            "from its config.json out to resume it, or give another --out_dir"
        )


def machine_preset() -> str:
    """The preset that suits this machine."""
    # late: torch takes seconds
    from core.runtime.fabric import preset_for_this_machine

    return preset_for_this_machine()


def _automatic(
    presets: Mapping[str, Callable[[], ConfigType]],
    auto: str | Callable[[], str] | None,
    words: list[str],
) -> str:
    """The preset that "auto" stands for, decided where it can matter."""
    if not callable(auto):
        return auto or "auto"
    if _HELP & {*words}:
        return "auto"
    refusals = {in_words(_refusal(_default(presets, name, words), words)) for name in presets}
    # what all presets refuse in the same words needs no torch
    return "auto" if len(refusals) == 1 and "" not in refusals else auto()


def _default(
    presets: Mapping[str, Callable[[], ConfigType]], preset: str, words: list[str]
) -> ConfigType:
    """Settings of a preset, the first one for "auto", with a warm-up that suits --epochs."""
    default = presets.get(preset, next(iter(presets.values())))()
    epochs = last_value(words, "epochs") or ""
    if hasattr(default, "optim") and epochs.isdecimal():
        default.optim.shorten_warmup(int(epochs))
    return default


def flags(default: ConfigType, description: str | None) -> ConfigType:
    """Settings from the command line over those of `default`: for a program without presets."""
    return _from_flags(default, sys.argv[1:], description)


def _from_flags(default: ConfigType, words: list[str], description: str | None) -> ConfigType:
    if sentence := sentence_of_group(_refusal(default, words)):
        _tell(sentence)
        sys.exit(2)
    return _read_flags(default, words, description)


def _read_flags(default: ConfigType, words: list[str], description: str | None) -> ConfigType:
    """As tyro reads them: what it refuses is printed in a box, and ends the program."""
    _check_choices(default, words)
    tells = _first_here()
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


def _refusal(default: Any, words: list[str]) -> str:
    """The box in which tyro refuses these flags; "" where it does not."""
    # by the encoding tyro chooses the letters of its box
    told = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")
    try:
        with redirect_stdout(told), redirect_stderr(told):
            _read_flags(default, words, None)
    except SystemExit as stop:
        told.seek(0)
        return told.read() if stop.code == 2 else ""
    return ""


def _check_choices(config: Any, arguments: list[str]) -> None:
    """Raise UserError with the nearest choice where a flag of few choices has none of them."""
    for name, choices in _choices(config).items():
        given = last_value(arguments, name)
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

    Ctrl-C, SIGTERM and SIGUSR1 outside of training (which saves its state first) end with 130, 143
    and 138, and output that nobody reads any more (`| head`) with 141, all in silence. Where
    another process of the launch was lost, one of those that are left says which. Output that a
    full disk does not take ends the program as a file does.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # a log file fills while the run goes on; a file's name may be no UTF-8
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    allow_open_files()
    answer_stops(leave)
    explained = True
    try:
        main()
        if sys.stdout is not None:
            sys.stdout.flush()
        explained = False
    except UserError as error:
        _tell(str(error))
        sys.exit(2)
    except BrokenPipeError:
        if _stdout_is_read():
            raise
        sys.exit(_UNREAD)
    except OSError as error:
        if told := describe_shortage(error):
            sentence = str(told)
        elif error.filename is not None:
            sentence = f"{error.filename} cannot be used: {error.strerror}"
        elif error.errno in _OF_A_DISK:
            sentence = (
                f"what is printed cannot be written: {error.strerror}; make room where it goes, "
                "and give the same command again"
            )
        elif (error.strerror or "").startswith("No usable temporary directory"):
            sentence = f"{error.strerror}: make room in one of them, or name another with TMPDIR"
        else:
            # without the name of a file it is no matter of the user's files
            raise
        _tell(str(UserError(sentence)))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit:
        # a launcher that sees one process end asks the others to
        if (roll := _roll()) and roll.sibling_is_gone():
            explained = _print(roll.sentence_of_loss())
        raise
    except (RuntimeError, MemoryError, ImportError) as error:
        if told := lost_worker(error) or describe_shortage(error):
            _tell(str(told))
            sys.exit(2)
        roll = _roll()
        if roll is None or not roll.is_loss(error):
            raise
        explained = _print(roll.sentence_of_loss())
        sys.exit(2)
    finally:
        # the interpreter has its own way to the end, which nothing may disturb
        answer_stops(None)
        # loader workers that are left are killed, which PyTorch would take for an error
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _settle(sys.stdout)
        if roll := _roll():
            roll.leave(explained=explained)


def _stdout_is_read() -> bool:
    """Whether somebody is at the other end; if not, what is left to be written goes nowhere."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        # with an empty event mask, poll() reports only hang-ups
        if not poll.poll(0):
            return True
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return False


def _settle(stream: TextIO | None) -> None:
    """Let what a full disk does not take go nowhere: the interpreter would try again, and fail."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _first_here() -> bool:
    """Whether this is the first process of a launch on this machine; so without a launcher."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _tell(sentence: str) -> None:
    """Print an error, in one process of a launch.

    Before processes are joined they see the same files, at least those of one machine.
    """
    roll = _roll()
    if roll.first_to_tell() if roll else _first_here():
        _print(sentence)


def _print(sentence: str | None) -> bool:
    """Whether there was something to say."""
    if sentence is not None:
        # where stderr is on that full disk too, the exit code is left
        with suppress(OSError):
            print(f"error: {sentence}", file=sys.stderr)
        _settle(sys.stderr)
    return sentence is not None


def _roll() -> "Roll | None":
    """The other processes of a launch, once they are connected to each other."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    # late: torch is not imported for a program that does without
    from core.runtime.ranks import Roll

    return Roll()
