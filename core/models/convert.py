"""Convert a PyTorch file of weights (.pth, .pt, .ckpt, .bin) to .safetensors; runs no code of it.

python -m core.models.convert weights.pth weights.safetensors
"""

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from core.config.command_line import run
from core.errors import UserError, escape_control, format_size, list_first, pluralize
from core.io.atomic import check_writable
from core.runtime.log import logger

if TYPE_CHECKING:
    from torch import Tensor

# names of state dicts in a file, the preferred ones first: averaged weights, then the last ones
KEYS = (
    *("teacher", "state_dict_ema", "model_ema", "ema", "ema_state_dict", "state_dict"),
    *("model_state_dict", "model", "net", "network", "module", "encoder", "backbone", "weights"),
)
# names of wrappers around a whole network
_WRAPPERS = ("module.", "_orig_mod.")
_DEEPEST = 3
# printed tensors at the start and at the end of a long list
_SHOWN = 8
# state dicts with a smaller share of the elements of the largest are preferred last
_SMALL = 0.01
# most bytes of tensors for a byte of the file
_LARGEST = 20


def convert(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IN.pth")],
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT.safetensors")],
    key: str = "",
    overwrite: bool = False,
) -> None:
    """Convert a PyTorch file of weights (.pth, .pt, .ckpt, .bin) to .safetensors.

    No code of the file is run. Give the new file to a training by --weights_file.

    Args:
        source: File that torch.save wrote.
        output: New file.
        key: Name of the weights in a file that holds several, e.g. student.
        overwrite: Replace an existing output.
    """
    if output.suffix != ".safetensors":
        raise UserError(f"the output {output} must end in .safetensors")
    check_writable(output, [source], "OUT")
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists: choose another path, or give --overwrite")
    if not output.parent.is_dir():
        raise UserError(f"the folder {output.parent} is not there: create it first")
    # late, to keep --help fast
    from core.models.checkpoint import save_tensors

    found = find_state_dicts(_read(source))
    if not found:
        raise UserError(f"{source} holds no named tensors: give a file of a network's weights")
    if key and key not in found:
        raise UserError(f"{source} has no weights '{key}': it has {list_first([*found], 12)}")
    name = key or next(iter(found))
    tensors = strip_wrappers(_tensors_of(source, found[name]))
    # --key cannot name the file itself
    others = [other for other in found if other not in ("", name)]
    logger.info(f"{source}: {pluralize(len(tensors), 'tensor')}{f' of {name!r}' if name else ''}")
    if others:
        logger.info(f"It also has {list_first(others, 12)}, which --key selects.")
    logger.info("\n".join(_list(tensors)))
    save_tensors(output, tensors, {"converted_from": source.name})
    logger.info(f"Wrote {output} ({format_size(output.stat().st_size)}).")


def find_state_dicts(content: Any) -> dict[str, Mapping[str, Any]]:
    """State dicts in a file by dotted name ("" for the file itself), the preferred first."""
    from torch import Tensor

    found = dict(_walk(content, "", 0, set()))
    sizes = {
        name: sum(one.numel() for one in state.values() if isinstance(one, Tensor))
        for name, state in found.items()
    }
    enough = _SMALL * max(sizes.values(), default=0)

    def preference(name: str) -> tuple[bool, int]:
        last = name.rpartition(".")[2]
        place = KEYS.index(last) if last in KEYS else len(KEYS) + bool(name)
        return sizes[name] < enough, place

    return {name: found[name] for name in sorted(found, key=preference)}


def strip_wrappers(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Tensors without the prefixes of DistributedDataParallel and torch.compile."""
    names = dict(tensors)
    while wrapper := next((w for w in _WRAPPERS if all(n.startswith(w) for n in names)), ""):
        names = {name.removeprefix(wrapper): tensor for name, tensor in names.items()}
    return names


def _walk(
    content: Any, name: str, depth: int, seen: set[int]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Mappings with tensors among their values; each once, as a file may hold circles."""
    from torch import Tensor

    if not isinstance(content, Mapping) or depth > _DEEPEST or id(content) in seen:
        return
    seen.add(id(content))
    if any(isinstance(value, Tensor) for value in content.values()):
        yield name, content
    for inner, value in content.items():
        if isinstance(inner, str):
            yield from _walk(value, f"{name}.{inner}".lstrip("."), depth + 1, seen)


def _tensors_of(source: Path, state: Mapping[Any, Any]) -> dict[str, "Tensor"]:
    """The dense tensors of a state dict; other values are left out. Raises UserError."""
    import torch

    tensors = {name: one for name, one in state.items() if isinstance(one, torch.Tensor)}
    odd = [name for name in tensors if not _is_name(name)]
    odd += [
        name
        for name, one in tensors.items()
        if one.layout != torch.strided or one.is_quantized or one.is_complex() or one.is_meta
    ]
    if odd:
        raise UserError(
            f"{source} holds tensors that are sparse, quantized, complex, or lack data or a valid "
            f"name ({list_first([escape_control(str(name)) for name in odd])}): save its weights "
            "as plain, named tensors"
        )
    size = sum(one.numel() * one.element_size() for one in tensors.values())
    # a view repeats memory: a small file could fill the disk
    if size > _LARGEST * source.stat().st_size:
        raise UserError(f"{source} describes {format_size(size)}, far more than it holds")
    return tensors


def _is_name(name: object) -> bool:
    """Whether a .safetensors file can hold a tensor of this name."""
    try:
        # also without a wrapper's prefix
        return isinstance(name, str) and name.encode().split(b".")[-1] != b"__metadata__"
    # lone surrogates
    except UnicodeEncodeError:
        return False


def _list(tensors: Mapping[str, "Tensor"]) -> list[str]:
    """Lines of name, shape and type; the middle of a long list is left out."""
    lines = [
        f"  {escape_control(name)[:200]}  {tuple(one.shape)}  {str(one.dtype)[6:]}"
        for name, one in tensors.items()
    ]
    left_out = len(lines) - 2 * _SHOWN
    if left_out > 1:
        lines[_SHOWN:-_SHOWN] = [f"  ... {left_out:,} more ..."]
    return lines


def _read(path: Path) -> Any:
    """Content of a file that torch.save wrote. Raises UserError for any other, and for code."""
    import torch

    if not path.is_file():
        raise UserError(f"{path} is not there, or is not a file")
    if path.suffix == ".safetensors":
        raise UserError(f"{path} is a .safetensors file already: give it to --weights_file")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                # torch.save compresses nothing; a small file could fill the memory
                if any(one.compress_type != zipfile.ZIP_STORED for one in archive.infolist()):
                    raise ValueError("it is compressed")
        with torch.serialization.safe_globals(_allowed()):
            return torch.load(path, map_location="cpu", weights_only=True)
    # a damaged or hostile file raises any exception
    except Exception as error:
        raise _refusal(path, error) from error


def _allowed() -> list[Any]:
    """What a file may hold beside tensors: argparse.Namespace, NumPy scalars and their types."""
    import argparse

    import numpy as np

    types = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
    scalar = np.float64(0).__reduce__()[0]
    # the name in files of NumPy 1
    return [argparse.Namespace, np.dtype, *types, scalar, (scalar, "numpy.core.multiarray.scalar")]


def _refusal(path: Path, error: Exception) -> UserError:
    import torch

    message = str(error)
    blocked = re.findall(r"(?:GLOBAL|class|function|module) ([\w.]+\.[\w.]+)", message)
    try:
        with torch.serialization.safe_globals(_allowed()):
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    # of the same kinds
    except Exception:
        unsafe = []
    names = [escape_control(name) for name in dict.fromkeys([*unsafe, *blocked])]
    if "TorchScript" in message or any(name.startswith("torch.nn.modules.") for name in names):
        own = [name for name in names if not name.startswith(("torch.", "collections."))]
        return _whole_module(path, f" of {own[0]}" if own else "")
    if names:
        return UserError(
            f"{path} holds {list_first(names)}, which is neither a tensor nor a plain value and "
            "could run code: nothing was read; ask its owner for the state dict alone"
        )
    # the message of a KeyError is the key alone
    kind = "" if message and isinstance(error, ValueError) else type(error).__name__
    reason = ": ".join(filter(None, [kind, *message.splitlines()[:1]]))
    return UserError(f"{path} is not a file of torch.save, or is damaged ({reason})")


def _whole_module(path: Path, kind: str) -> UserError:
    return UserError(
        f"{path} is a whole network{kind}, which runs code when it is read: nothing was read. Its "
        "owner converts it where its package is installed, by three lines of Python: "
        "`import torch, safetensors.torch` | "
        f'`model = torch.load("{path.name}", map_location="cpu", weights_only=False)` | '
        f'`safetensors.torch.save_model(model, "{path.stem}.safetensors")`'
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command."""
    tyro.cli(convert, args=arguments)


if __name__ == "__main__":
    run(main)
