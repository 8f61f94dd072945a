"""Checkpoints as a folder that loads back offline, for a model hub."""

import json
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import torch

from core.errors import UserError
from core.models.checkpoint import load_tensors, save_tensors
from core.models.data_digests import NAME as DIGESTS
from core.models.load import load_model
from ensemble.predict.calibration import Calibration, write_calibration
from ensemble.predict.ensemble import Ensemble, Member
from ensemble.predict.ensemble_json import write_recipe

# settings in which a slash is part of a name, not of a path
NAMES = ("model", "labels")
DESCRIBED = (
    *("model", "fold", "folds", "epoch", "metrics"),
    *("training_positives", "training_known", "by_image", "versions"),
)


def weight_files(ensemble: Ensemble) -> list[str]:
    """The name of each member's file."""
    numbers = range(1, len(ensemble.members) + 1)
    several = [f"model_{number}.safetensors" for number in numbers]
    return several if len(several) > 1 else ["model.safetensors"]


def needs_recipe(ensemble: Ensemble) -> bool:
    """Whether an ensemble.json has to name the models or classes."""
    first, *others = ensemble.members
    return bool(others) or list(first.info.class_names) != list(ensemble.class_names)


def write_models(folder: Path, ensemble: Ensemble, calibration: Calibration | None) -> None:
    """Write checkpoints without paths, config.json, and ensemble.json and calibration.json if any.

    Raises UserError where a written checkpoint gives other outputs, and as writing does.
    """
    listed, models = [], []
    for member, name, share in zip(
        ensemble.members, weight_files(ensemble), ensemble.shares.tolist(), strict=True
    ):
        tensors, _ = load_tensors(member.path)
        tensors.pop(DIGESTS, None)
        save_tensors(folder / name, tensors, shareable(member.info.facts))
        _check_same(member, folder / name)
        listed.append((name.removesuffix(".safetensors"), share, [folder / name]))
        info, facts = member.info, member.info.facts
        one = {"file": name, "share": share, "method": info.method, "image_size": info.image_size}
        one |= {"class_names": list(info.class_names)}
        models.append(one | {key: facts[key] for key in DESCRIBED if key in facts})
    if needs_recipe(ensemble):
        write_recipe(folder / "ensemble.json", listed, ensemble.class_names, {})
    if calibration is not None:
        write_calibration(folder / "calibration.json", calibration, {})
    document = {
        "library_name": "longtail-cxr",
        "class_names": list(ensemble.class_names),
        "models": models,
        "input": "grey pixels, uint8 or float in [0, 1], (B, 1, image_size, image_size)",
        "output": "logits (B, C) in the order of a model's class_names; probabilities by sigmoid",
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def shareable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's facts without its format and the digests of its images and patients, and with
    the names alone of paths in settings."""
    left_out = ("format_version", DIGESTS)
    kept = {name: value for name, value in facts.items() if name not in left_out}
    if isinstance(settings := kept.get("settings"), dict):
        kept["settings"] = {
            name: value if name in NAMES else _last_part(value) for name, value in settings.items()
        }
    return kept


def _last_part(value: Any) -> Any:
    """A path's name, also of each path of a list."""
    if isinstance(value, list):
        return [_last_part(one) for one in value]
    return PureWindowsPath(value).name if isinstance(value, str) else value


@torch.no_grad()
def _check_same(member: Member, path: Path) -> None:
    model, info = load_model(path)
    random = torch.Generator().manual_seed(0)
    shape = (2, 1, info.image_size, info.image_size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    if not torch.equal(model(images), member.model(images)):
        raise UserError(f"{member.path} does not give the same once it is written anew")
