"""safetensors in and out: self-describing checkpoints and resumable states. No pickle anywhere."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from core.errors import UserError, doctor_hint, list_first
from core.io.atomic import write_atomically
from core.io.untrusted_files import LARGEST_JSON, check_regular

# from the second on a file carries a checksum; the third, of checkpoints with digests of their
# images, is for software that knows these
FORMAT_VERSION, NEWEST = 2, 3
# of the states of a run, beside its checkpoints
STATE_ENDING = ".state.safetensors"
# a state of the largest networks has about ten thousand
_MOST_TENSORS = 100_000


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> None:
    """Write `tensors` and the JSON-able `facts` to one file that is whole or not there.

    Of tied tensors each name holds a copy: safetensors refuses shared memory.
    """
    apart: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if place in places else plain
        places.add(place)
    told = json.dumps({"format_version": FORMAT_VERSION} | facts, allow_nan=False)
    metadata = {"facts": told, "sha256": _checksum(apart, told)}
    write_atomically(path, lambda temporary: _save(temporary, apart, metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and facts of a file that `save_tensors` wrote.

    Raises UserError for a file that is missing, damaged anywhere, of another kind or newer format.
    """
    with _opened(path) as file:
        facts, metadata, names = _read_facts(file, path), file.metadata(), file.keys()
        if len(names) > _MOST_TENSORS:
            raise UserError(f"{path} claims {len(names):,} tensors, more than {_MOST_TENSORS:,}")
        tensors = {name: file.get_tensor(name) for name in names}
    if metadata.get("sha256") != _checksum(tensors, metadata["facts"]):
        raise UserError(
            f"{path} is damaged: its checksum does not fit what it holds. {_mend(path)}"
        )
    return tensors, facts


def load_facts(path: Path) -> dict[str, Any]:
    """The facts of a file, its checksum unchecked. Raises UserError as `load_tensors` does."""
    with _opened(path) as file:
        return _read_facts(file, path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there") from error
    except UserError:
        raise
    # ValueError: a pipe; the last ones: numbers of types that torch does not have
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        raise UserError(f"{path} is no whole safetensors file ({error}). {_mend(path)}") from error


def _mend(path: Path) -> str:
    """What to do about a file that is not whole: a state has a fold that can start anew."""
    if path.name.endswith(STATE_ENDING):
        return "Copy it anew, or move it away, and its fold starts anew" + doctor_hint(
            "tells what else of the run is whole", " --run FOLDER"
        )
    return "Copy it anew, or train it" + doctor_hint(
        "tells which others are whole", " --checkpoint FILES"
    )


def _read_facts(file: Any, path: Path) -> dict[str, Any]:
    try:
        told = (file.metadata() or {}).get("facts", "null")
        if len(told) > LARGEST_JSON:
            raise ValueError(f"it has more than {LARGEST_JSON:,} bytes")
        facts = json.loads(told)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} does not describe itself in JSON ({error}). {_mend(path)}"
        ) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("format_version"), int):
        raise UserError(f"{path} was not written by this project: it does not describe itself")
    if facts["format_version"] > NEWEST:
        raise UserError(
            f"{path} has format {facts['format_version']}, newer than {NEWEST}: update "
            "this project to read it"
        )
    return facts


def _checksum(tensors: Mapping[str, Tensor], facts: str) -> str:
    """SHA-256 of the facts and of all tensors with their names, types and shapes."""
    digest = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those of the tensors whose names begin with `prefix`, which their names lose."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def unlike(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that one of both lacks, or has in another shape."""
    shapes, others = ({name: t.shape for name, t in part.items()} for part in (ours, theirs))
    names = sorted(shapes.keys() | others.keys())
    return [name for name in names if shapes.get(name) != others.get(name)]


def check_fits(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError where the `tensors` of `path` are not those of `module`."""
    if names := unlike(module.state_dict(), tensors):
        verb = "differs" if len(names) == 1 else "differ"
        raise UserError(f"{path} does not fit the model it describes: {list_first(names)} {verb}")


def load_into(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy `tensors` into `module`. Raises UserError where names or shapes differ."""
    check_fits(module, tensors, path)
    module.load_state_dict(tensors)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity in float32."""
    return sorted(n for n, tensor in tensors.items() if not tensor.float().isfinite().all())


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        # its input-output errors are not OSErrors, and end in that number
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise OSError(str(error)) from error
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
