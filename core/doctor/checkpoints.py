"""Check of a checkpoint: integrity, version, finite values."""

from pathlib import Path

from core.doctor.findings import Findings
from core.errors import UserError, format_size, list_first, pluralize
from core.models.checkpoint import find_not_finite, load_facts
from core.models.load import load_model
from core.models.starting_weights import Origin, describe_origin


def check_checkpoint(find: Findings, path: Path) -> tuple[str, ...]:
    """Check a checkpoint as `ensemble.infer` reads it; returns its class names.

    Raises UserError if it is invalid or has values that are not finite.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: give --run, or name a file in it")
    if "progress" in load_facts(path):
        raise UserError(f"{path} is a resume state: give --run {path.parent}")
    model, info = load_model(path)
    if odd := find_not_finite(model.state_dict()):
        raise UserError(
            f"{path} has values that are not finite ({list_first(odd)}): train that fold again"
        )
    origin = Origin.read(info.facts.get("starting_weights"))
    names, size = info.class_names, sum(one.numel() for one in model.parameters())
    find.good(
        f"{path}: {info.method}, {info.facts['model']['model']}, "
        f"{pluralize(len(names), 'class', 'classes')} ({list_first(names)}), {info.image_size} px, "
        f"{size / 1e6:.1f} million parameters, {format_size(path.stat().st_size)}; valid checksum; "
        f"starting weights: {describe_origin(origin)}"
    )
    return names
