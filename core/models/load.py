"""Models of any method from their checkpoints."""

from __future__ import annotations

import importlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import UserError, escape_control, list_first
from core.io.untrusted_files import unsurprising
from core.models.data_digests import NAME as DIGESTS
from core.models.data_digests import DataDigests
from core.models.loaded_model import LoadedModel, ModelInfo

# pixels a side, and classes; a file that claims more is not believed
MAX_SIZE = 8192
MAX_CLASSES = 10_000
LONGEST_NAME = 500


def load_model(path: str | Path) -> LoadedModel:
    """The model of a checkpoint, on the CPU in eval mode; unpacks as (module, info) too.

    `predict` takes images as they are. The module takes uint8 or float in [0, 1], (B, 1, H, W), and
    gives logits (B, C) in the order of `class_names`. A folder is one that `python -m
    ensemble.export --format folder` made of one checkpoint. Raises UserError where the file is no
    whole checkpoint of a method that is here.
    """
    import torch

    from core.models.backbone import restore_config
    from core.models.checkpoint import check_fits, load_tensors

    path = Path(path)
    if path.is_dir():
        path = _weights_in(path)
    tensors, facts = load_tensors(path)
    method = facts.get("method")
    # the name comes from a file: only a folder that is here may be imported
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
        # as an outline first: a small file may name a network of many gigabytes
        with torch.device("meta"):
            outline = build_model(config, len(info.class_names))
    # timm raises about anything where settings are not those of a network
    except Exception as error:
        raise UserError(f"{path} does not say what model it holds ({error})") from error
    check_fits(outline, tensors, path)
    model = build_model(config, len(info.class_names))
    model.load_state_dict(tensors)
    return LoadedModel(model.eval(), info)


def _weights_in(folder: Path) -> Path:
    """The checkpoint of an exported folder. Raises UserError that names those of another one."""
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
            f"{folder} is no exported folder: name one of its files: {list_first(found)}"
        )
    raise UserError(f"{folder} holds no checkpoint: name a folder that does, or a checkpoint")


def _read_info(method: str, facts: dict[str, Any], path: Path) -> ModelInfo:
    """What the file says of itself, checked: it may come from anywhere."""
    names, size = facts.get("class_names"), facts.get("img_size")
    names = names if isinstance(names, list) else []
    if len(names) > MAX_CLASSES:
        raise UserError(f"{path} claims {len(names):,} classes, more than {MAX_CLASSES:,}")
    # a text that can be written, to a terminal too
    named = all(
        isinstance(name, str)
        and name.encode(errors="ignore").decode() == escape_control(name) == name != ""
        and len(name) <= LONGEST_NAME
        for name in names
    )
    if not names or not named or len(set(names)) < len(names):
        raise UserError(f"{path} does not name its classes, each once")
    if type(size) is not int or not 1 <= size <= MAX_SIZE:
        raise UserError(f"{path} does not say what size its images have")
    return ModelInfo(method, tuple(names), size, unsurprising(facts))


def method_names() -> list[str]:
    """The folders of `methods/` that hold a model."""
    spec = find_spec("methods")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folders = map(Path, spec.submodule_search_locations)
    return sorted(path.parent.name for folder in folders for path in folder.glob("*/model.py"))
