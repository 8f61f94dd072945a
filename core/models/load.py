"""Models of any method from their checkpoints."""

from __future__ import annotations

import importlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.config.training import MAX_IMG_SIZE
from core.errors import UserError, escape_control, list_first
from core.io.untrusted_files import strict_json
from core.models.data_digests import NAME as DIGESTS
from core.models.data_digests import DataDigests
from core.models.loaded_model import LoadedModel, ModelInfo

# largest values that are accepted from a file
MAX_CLASSES = 10_000
LONGEST_NAME = 500


def load_model(path: str | Path) -> LoadedModel:
    """Load the model of a checkpoint, on the CPU in eval mode; unpacks as (module, info) too.

    `predict` takes images of any size. The module maps uint8 or float in [0, 1], (B, 1, H, W), to
    logits (B, C) in the order of `class_names`. `path` may be a folder of `python -m
    ensemble.export --format folder` with one checkpoint. Raises UserError for a missing or damaged
    file, a resume state, any other folder, and an unknown method or invalid settings.
    """
    import torch

    from core.models.backbone import restore_config
    from core.models.checkpoint import STATE_ENDING, check_fits, load_tensors

    path = Path(path)
    if path.is_dir():
        path = _weights_in(path)
    if path.name.endswith(STATE_ENDING):
        raise UserError(
            f"{path} is a resume state, not a checkpoint: name the file without .state beside it"
        )
    tensors, facts = load_tensors(path)
    method = facts.get("method")
    # untrusted: only an existing folder of `methods` may be imported
    if not isinstance(method, str) or method not in method_names():
        raise UserError(f'{path} names the method "{method}"; known: {", ".join(method_names())}')
    info = replace(
        _read_info(method, facts, path), data_digests=DataDigests.read(tensors, facts, path)
    )
    tensors.pop(DIGESTS, None)
    build_model = importlib.import_module(f"methods.{method}.model").build_model
    kind = importlib.import_module(f"methods.{method}.config").ModelConfig
    try:
        config = restore_config(kind, facts["model"])
        # without memory first: a small file may name a network of many gigabytes
        # older checkpoints have no patch size: theirs are networks of timm's default size
        size = info.image_size if "patch_size" in facts["model"] else None
        with torch.device("meta"):
            empty = build_model(config, len(info.class_names), img_size=size)
    # timm raises any exception for invalid settings
    except Exception as error:
        raise UserError(f"{path} does not describe a valid model ({error})") from error
    check_fits(empty, tensors, path)
    model = build_model(config, len(info.class_names), img_size=size)
    model.load_state_dict(tensors)
    return LoadedModel(model.eval(), info)


def _weights_in(folder: Path) -> Path:
    """The checkpoint in an exported folder. Raises UserError for any other folder."""
    path = folder / "model.safetensors"
    if path.is_file():
        return path
    names = sorted(one.name for one in folder.glob("[!.]*.safetensors"))
    found = [name for name in names if not name.endswith(".state.safetensors")]
    if (recipe := folder / "ensemble.json").is_file():
        raise UserError(
            f"{folder} holds several models: `python -m ensemble.infer --ensemble {recipe}` "
            f"predicts by all of them; to load one, name its file: {list_first(found)}"
        )
    if found:
        raise UserError(
            f"{folder} is not an exported folder: name one of its files: {list_first(found)}"
        )
    raise UserError(f"{folder} has no checkpoint: name a checkpoint or an exported folder")


def _read_info(method: str, facts: dict[str, Any], path: Path) -> ModelInfo:
    """Validated description of an untrusted checkpoint. Raises UserError."""
    names, size = facts.get("class_names"), facts.get("img_size")
    names = names if isinstance(names, list) else []
    if len(names) > MAX_CLASSES:
        raise UserError(f"{path} claims {len(names):,} classes, more than {MAX_CLASSES:,}")
    # printable on a terminal
    valid = all(
        isinstance(name, str)
        and name.encode(errors="ignore").decode() == escape_control(name) == name != ""
        and len(name) <= LONGEST_NAME
        for name in names
    )
    if not names or not valid or len(set(names)) < len(names):
        raise UserError(f"{path} has no valid list of classes")
    if type(size) is not int or not 1 <= size <= MAX_IMG_SIZE:
        raise UserError(f"{path} has no valid image size")
    return ModelInfo(method, tuple(names), size, strict_json(facts))


def method_names() -> list[str]:
    """Names of the methods: folders of `methods/` with a model."""
    spec = find_spec("methods")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folders = map(Path, spec.submodule_search_locations)
    return sorted(path.parent.name for folder in folders for path in folder.glob("*/model.py"))
