"""Safetensors files: self-describing checkpoints and resume states, without pickle."""

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

# 2: with a checksum; 3: checkpoints with digests of their images
FORMAT_VERSION, NEWEST = 2, 3
# file ending of resume states
STATE_ENDING = ".state.safetensors"
# a state of the largest networks has about ten thousand tensors
_MOST_TENSORS = 100_000


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: dict[str, Any]) -> None:
    """Write `tensors` and the JSON-able `facts` to one file, atomically.

    Tensors are of any shape and device. Tied tensors are copied for each name: safetensors refuses
    shared memory. Raises UserError if the file cannot be written; an old one is then unchanged.
    """
    separate: dict[str, Tensor] = {}
    addresses: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        address = own.untyped_storage().data_ptr()
        separate[name] = own.clone() if address in addresses else own
        addresses.add(address)
    text = json.dumps({"format_version": FORMAT_VERSION} | facts, allow_nan=False)
    metadata = {"facts": text, "sha256": _checksum(separate, text)}
    write_atomically(path, lambda temporary: _save(temporary, separate, metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load tensors by name (on the CPU) and facts of a file of `save_tensors`.

    Raises UserError for a missing, damaged or foreign file, or a newer format.
    """
    with _open(path) as file:
        facts, metadata, names = _read_facts(file, path), file.metadata(), file.keys()
        if len(names) > _MOST_TENSORS:
            raise UserError(f"{path} claims {len(names):,} tensors, more than {_MOST_TENSORS:,}")
        tensors = {name: file.get_tensor(name) for name in names}
    if metadata.get("sha256") != _checksum(tensors, metadata["facts"]):
        raise UserError(
            f"{path} is damaged: its checksum does not match its content. {_remedy(path)}"
        )
    return tensors, facts


def load_facts(path: Path) -> dict[str, Any]:
    """Load the facts of a file without verifying its checksum.

    Raises UserError for a missing or foreign file, or a newer format.
    """
    with _open(path) as file:
        return _read_facts(file, path)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there") from error
    except UserError:
        raise
    # ValueError: a pipe; the last three: data types that torch lacks
    except (SafetensorError, OSError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        raise UserError(
            f"{path} is not a valid safetensors file ({error}). {_remedy(path)}"
        ) from error


def _remedy(path: Path) -> str:
    """What to do about a damaged file."""
    if path.name.endswith(STATE_ENDING):
        return "Copy it again, or move it away to restart its fold" + doctor_hint(
            "checks the other files of the run", " --run FOLDER"
        )
    if path.suffix != ".safetensors":
        return "Only checkpoints of this project (.safetensors) are read"
    return "Copy it again, or train it again" + doctor_hint(
        "checks other checkpoints", " --checkpoint FILES"
    )


def _read_facts(file: Any, path: Path) -> dict[str, Any]:
    try:
        text = (file.metadata() or {}).get("facts", "null")
        if len(text) > LARGEST_JSON:
            raise ValueError(f"it has more than {LARGEST_JSON:,} bytes")
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} has no valid JSON description ({error}). {_remedy(path)}"
        ) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("format_version"), int):
        raise UserError(f"{path} was not written by this project: it has no description")
    if facts["format_version"] > NEWEST:
        raise UserError(
            f"{path} has format {facts['format_version']}, newer than {NEWEST}: update this project"
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


def select_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors with names that start with `prefix`, and strip it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def find_mismatches(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that are missing on one side or differ in shape."""
    shapes, others = ({name: t.shape for name, t in part.items()} for part in (ours, theirs))
    names = sorted(shapes.keys() | others.keys())
    return [name for name in names if shapes.get(name) != others.get(name)]


def check_fits(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError if the `tensors` of `path` do not match `module` in names and shapes."""
    if names := find_mismatches(module.state_dict(), tensors):
        verb = "differs" if len(names) == 1 else "differ"
        raise UserError(f"{path} does not fit the model it describes: {list_first(names)} {verb}")


def load_into(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy `tensors` into `module`. Raises UserError if names or shapes differ."""
    check_fits(module, tensors, path)
    module.load_state_dict(tensors)


def find_not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity in float32."""
    return sorted(
        name
        for name, one in tensors.items()
        if not (one if one.is_complex() else one.float()).isfinite().all()
    )


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        # its I/O errors are not OSErrors and end in the errno
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise OSError(str(error)) from error
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
