"""Checkpoints: whole, of a version that can be read, finite."""

from pathlib import Path

from core.doctor.findings import Findings
from core.errors import UserError, counted, nearest, size_of, some
from core.models.checkpoint import FORMAT_VERSION, STATE_ENDING, load_facts, not_finite
from core.models.load import load_model


def check_checkpoint(find: Findings, path: Path) -> tuple[str, ...]:
    """Read a checkpoint as `ensemble.infer` does, and give its class names.

    Raises UserError where it cannot be read whole.
    """
    if not path.is_file():
        beside = [one.name for one in path.parent.glob("*.safetensors")]
        beside = [name for name in beside if not name.endswith(STATE_ENDING)]
        raise UserError(
            f"{path} is a folder: give --run, or name a file in it"
            if path.is_dir()
            else f"there is no checkpoint {path.name} in {path.absolute().parent}"
            + nearest(path.name, beside)
        )
    if "progress" in load_facts(path):
        raise UserError(f"{path} is a resume state: give --run {path.parent}")
    model, info = load_model(path)
    if spoiled := not_finite(model.state_dict()):
        raise UserError(
            f"{path} holds numbers that are not finite ({some(spoiled)}): train that fold again"
        )
    settings, facts = info.facts.get("model"), info.facts
    network = settings.get("model") if isinstance(settings, dict) else ""
    parameters = sum(one.numel() for one in model.parameters())
    told = (
        f"{path}: {info.method}, {network}, {counted(len(info.class_names), 'class', 'classes')} "
        f"({some(info.class_names)}), {info.image_size} px, {parameters / 1e6:.1f} million "
        f"parameters, {size_of(path.stat().st_size)}"
    )
    for name in ("fold", "epoch"):
        if type(facts.get(name)) is int:
            told += f", {name} {facts[name]}"
    version = facts["format_version"]
    if version < FORMAT_VERSION:
        find.doubt(
            f"{told}; format {version}, which has no checksum: damage would not be seen",
            "train it anew, or keep a copy whose SHA-256 you know",
        )
    else:
        find.good(f"{told}; its checksum fits")
    return info.class_names
