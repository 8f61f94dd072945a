"""Check of a checkpoint: whole, of a version that can be read, finite."""

from pathlib import Path

from core.doctor.findings import Findings
from core.errors import UserError, counted, nearest, size_of, some
from core.models.checkpoint import FORMAT_VERSION, STATE_ENDING, load_facts, not_finite
from core.models.load import load_model


def check_checkpoint(find: Findings, path: Path) -> tuple[str, ...]:
    """Class names of a checkpoint, read as `ensemble.infer` does. Raises UserError if it cannot be.

    A checkpoint with numbers that are not finite is refused too.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: give --run, or name a file in it")
    if not path.is_file():
        beside = [one.name for one in path.parent.glob("*.safetensors")]
        weights = [name for name in beside if not name.endswith(STATE_ENDING)]
        raise UserError(
            f"there is no checkpoint {path.name} in {path.absolute().parent}"
            f"{nearest(path.name, weights)}"
        )
    if "progress" in load_facts(path):
        raise UserError(f"{path} is a resume state: give --run {path.parent}")
    model, info = load_model(path)
    if odd := not_finite(model.state_dict()):
        raise UserError(
            f"{path} holds numbers that are not finite ({some(odd)}): train that fold again"
        )
    settings, version = info.facts.get("model"), info.facts["format_version"]
    parts = [
        *(info.method, str(settings.get("model")) if isinstance(settings, dict) else ""),
        f"{counted(len(info.class_names), 'class', 'classes')} ({some(info.class_names)})",
        f"{info.image_size} px",
        f"{sum(one.numel() for one in model.parameters()) / 1e6:.1f} million parameters",
        size_of(path.stat().st_size),
        *(f"{n} {info.facts[n]}" for n in ("fold", "epoch") if type(info.facts.get(n)) is int),
    ]
    found = f"{path}: {', '.join(parts)}"
    if version >= FORMAT_VERSION:
        find.good(f"{found}; its checksum fits")
    else:
        find.doubt(
            f"{found}; format {version} has no checksum, so that damage is not seen",
            "train it again, or compare it with a copy whose SHA-256 you know",
        )
    return info.class_names
