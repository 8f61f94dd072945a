"""Hub folder: exported checkpoints that load offline."""

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

# settings in which a slash is not part of a path
NAMES = ("model", "labels")
DESCRIBED = (
    *("model", "fold", "folds", "epoch", "metrics", "average"),
    *("training_positives", "training_known", "by_image", "versions"),
)


def weight_files(ensemble: Ensemble) -> list[str]:
    """File name of each member."""
    numbers = range(1, len(ensemble.members) + 1)
    several = [f"model_{number}.safetensors" for number in numbers]
    return several if len(several) > 1 else ["model.safetensors"]


def needs_recipe(ensemble: Ensemble) -> bool:
    """True if an ensemble.json is needed for the models or classes."""
    first, *others = ensemble.members
    return bool(others) or list(first.info.class_names) != list(ensemble.class_names)


def write_models(folder: Path, ensemble: Ensemble, calibration: Calibration | None) -> None:
    """Write checkpoints without paths, config.json, and ensemble.json and calibration.json if any.

    Raises UserError if the outputs of a written checkpoint differ, and if writing fails.
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
    """Checkpoint metadata without digests of images and patients, and with file names alone
    instead of paths."""
    left_out = ("format_version", DIGESTS)
    public = {name: value for name, value in facts.items() if name not in left_out}
    if isinstance(settings := public.get("settings"), dict):
        public["settings"] = {
            name: value if name in NAMES else _last_part(value) for name, value in settings.items()
        }
    return public


def _last_part(value: Any) -> Any:
    """Name of a path, or of each path in a list."""
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
        raise UserError(f"{member.path} gives other outputs after export: report this as a bug")
