"""Checkpoints as a folder that loads back offline and that a model hub takes as it is."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from numpy.typing import NDArray

from core.errors import UserError
from core.models.checkpoint import load_tensors, save_tensors
from core.models.load import config_class, load_model
from ensemble.predict import ensemble_json as recipe
from ensemble.predict.calibration import Calibration, write_calibration
from ensemble.predict.members import Member

WEIGHTS = "model.safetensors"


def weight_files(members: Sequence[Member]) -> list[str]:
    """The name of each member's file."""
    if len(members) == 1:
        return [WEIGHTS]
    return [f"model_{number}.safetensors" for number in range(1, len(members) + 1)]


def needs_recipe(members: Sequence[Member], class_names: Sequence[str]) -> bool:
    """Whether the weights alone do not tell which classes come out, merged how."""
    return len(members) > 1 or list(members[0].info.class_names) != list(class_names)


def write_models(
    folder: Path,
    members: Sequence[Member],
    shares: NDArray[Any],
    class_names: Sequence[str],
    calibration: Calibration | None,
) -> None:
    """Write each checkpoint without the paths in its settings, config.json, ensemble.json where
    they do not tell all (`needs_recipe`), and calibration.json where there is one.

    Reads all back and predicts with it. Raises UserError where not the same comes out, and as
    writing and reading do.
    """
    names = weight_files(members)
    for member, name in zip(members, names, strict=True):
        tensors, _ = load_tensors(member.path)
        save_tensors(folder / name, tensors, shareable(member.info.method, member.info.facts))
        _check_same(member, folder / name)
    if needs_recipe(members, class_names):
        listed = [
            recipe.Member(name.removesuffix(".safetensors"), float(share), (folder / name,))
            for name, share in zip(names, shares, strict=True)
        ]
        recipe.write_recipe(folder / "ensemble.json", listed, class_names, {})
    if calibration is not None:
        write_calibration(folder / "calibration.json", calibration, {})
    document = {
        "library_name": "longtail-cxr",
        "class_names": list(class_names),
        "models": [
            {"file": name, "share": float(share)} | _described(member)
            for member, name, share in zip(members, names, shares, strict=True)
        ],
        "input": "grey pixels, uint8 or float in [0, 1], (B, 1, image_size, image_size)",
        "output": "logits (B, C) in the order of a model's class_names; probabilities by sigmoid",
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def shareable(method: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's facts without its format, which is the writer's own, and without the folders
    of the paths in its settings."""
    kept = {name: value for name, value in facts.items() if name != "format_version"}
    settings = kept.get("settings")
    if not isinstance(settings, dict):
        return kept
    paths = _path_settings(config_class(method))
    shorter = {name: _last_part(value, name in paths) for name, value in settings.items()}
    return kept | {"settings": shorter}


def _path_settings(config: Any) -> set[str]:
    """Flags of a Config, and of the groups in it, that are paths."""
    found: set[str] = set()
    for field in fields(config):
        hint = get_type_hints(config)[field.name]
        if is_dataclass(hint):
            found |= _path_settings(hint)
        elif "Path" in str(hint):
            found.add(field.name)
    return found


def _last_part(value: Any, is_path: bool) -> Any:
    """A path's name; of what is none, only what is an absolute path all the same (of a setting that
    there is no more)."""
    if isinstance(value, list):
        return [_last_part(one, is_path) for one in value]
    if isinstance(value, str) and (is_path or re.match(r"[\\/~]|[A-Za-z]:[\\/]", value)):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    return value


def _described(member: Member) -> dict[str, Any]:
    kept = ("model", "fold", "folds", "epoch", "metrics", "training_positives", "training_known")
    facts = member.info.facts
    told = {name: facts[name] for name in (*kept, "versions") if name in facts}
    return {
        "method": member.info.method,
        "image_size": member.info.image_size,
        "class_names": list(member.info.class_names),
    } | told


@torch.no_grad()
def _check_same(member: Member, path: Path) -> None:
    """Raise UserError where what was written does not give the same bits."""
    model, info = load_model(path)
    size = info.image_size
    images = torch.randint(
        0, 256, (2, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    if not torch.equal(model(images), member.model(images)):
        raise UserError(f"{member.path} does not give the same once it is written anew")
