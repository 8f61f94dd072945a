"""Checkpoint of an average: description, record of its members, and digests of their data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from core.errors import UserError
from core.io.atomic import check_writable, make_folder
from core.models.checkpoint import STATE_ENDING, load_facts, save_tensors
from core.models.data_digests import NAME as DIGESTS
from core.models.data_digests import DataDigests, DigestSet
from ensemble.predict.ensemble import Member

# name of the fact that describes the average
AVERAGE = "average"
# facts of a single training, which an average has in the record of its members alone
_OF_ONE = ("epoch", "metrics", "format_version", DIGESTS)
# facts that are left out if the members differ
_SHARED = ("fold", "folds", "by_image", "starting_weights")
_COUNTS = ("training_positives", "training_known")


def check_output(path: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Raise UserError if `path` is an input, not writable, exists or is no .safetensors.

    `overwrite` allows to replace an earlier average.
    """
    if path.suffix != ".safetensors" or path.name.endswith(STATE_ENDING):
        raise UserError(f"--output {path} must end in .safetensors, but not in {STATE_ENDING}")
    check_writable(path, inputs)
    if not path.exists():
        return
    if not overwrite:
        raise UserError(f"{path} exists: give another --output, or --overwrite to replace it")
    try:
        replaceable = AVERAGE in load_facts(path)
    except UserError:
        replaceable = False
    if not replaceable:
        raise UserError(
            f"{path} exists and is not a checkpoint of ensemble.average, which --overwrite does "
            "not replace: give another --output"
        )


def merge_facts(members: Sequence[Member], record: Mapping[str, Any]) -> dict[str, Any]:
    """Description of the average of `members`: that of the first, with `record` and the members.

    The counts of a class are the largest of the members: their training images may be the same.
    """
    every = [member.info.facts for member in members]
    facts = {name: value for name, value in every[0].items() if name not in _OF_ONE}
    for name in _SHARED:
        if any(one.get(name) != facts.get(name) for one in every):
            facts.pop(name, None)
    for name in _COUNTS:
        facts.pop(name, None)
        counts = [member.facts(name) for member in members]
        classes = members[0].info.class_names
        if all(type(one.get(label)) is int for one in counts for label in classes):
            facts[name] = {label: max(one[label] for one in counts) for label in classes}
    described = [
        {"file": member.path.name, "sha256": member.digest}
        | {name: facts_.get(name) for name in ("fold", "epoch")}
        for member, facts_ in zip(members, every, strict=True)
    ]
    return facts | {AVERAGE: {**record, "members": described}}


def write_average(
    path: Path,
    tensors: Mapping[str, Tensor],
    members: Sequence[Member],
    record: Mapping[str, Any],
    chosen_on: Sequence[DigestSet] = (),
) -> None:
    """Write the checkpoint of the average `tensors` of `members`.

    chosen_on: images that the choice of the members was made on, which count as validation images.
    Raises UserError if the file cannot be written.
    """
    facts = merge_facts(members, record)
    digests = DataDigests.union([member.info.data_digests for member in members])
    if digests is not None and chosen_on:
        digests = DataDigests.union([digests, DataDigests(tuple(chosen_on))])
    if digests is not None:
        tensor, described = digests.to_tensors()
        tensors, facts = {**tensors, **tensor}, facts | described
    make_folder(path.parent)
    save_tensors(path, tensors, facts)
