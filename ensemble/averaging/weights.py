"""Average of weights (Wortsman 2022), and batch-norm statistics for it (Izmailov 2018)."""

from collections.abc import Mapping, Sequence

import torch
from timm.models import split_model_name_tag
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.errors import UserError, list_first
from core.models.checkpoint import find_mismatches, find_not_finite
from ensemble.predict.ensemble import Member

# buffers of the input's scale: a mean of two scales is neither
_SCALE = ("backbone.mean", "backbone.std")


def check_same(members: Sequence[Member]) -> None:
    """Raise UserError with the first difference of checkpoints that cannot be averaged.

    They must have one method, settings of the model, image size, classes in one order, scale of
    the input, and names and shapes of tensors; all values must be finite.
    """
    first = members[0]
    for member in members:
        if found := _difference(first, member):
            raise UserError(
                f"{member.path} cannot be averaged with {first.path}: {found}; give checkpoints of "
                "one method, network, image size and list of classes"
            )
        if spoiled := find_not_finite(member.model.state_dict()):
            raise UserError(
                f"{member.path} has values that are not finite in {list_first(spoiled)}: leave it "
                "out"
            )


def _difference(first: Member, member: Member) -> str:
    """The first difference of a checkpoint from the first one; "" if there is none."""
    ours, theirs = first.info, member.info
    if ours.method != theirs.method:
        return f"its method is {theirs.method}, not {ours.method}"
    settings, others = ({**one.facts("model")} for one in (first, member))
    for one in (settings, others):
        # a tag names pretrained weights, not the network
        one["model"] = split_model_name_tag(str(one["model"]))[0]
    for name in sorted({*settings, *others}):
        if settings.get(name) != others.get(name):
            return f"its --{name} is {others.get(name)}, not {settings.get(name)}"
    if ours.image_size != theirs.image_size:
        return f"its --img_size is {theirs.image_size}, not {ours.image_size}"
    for place, (here, there) in enumerate(zip(ours.class_names, theirs.class_names, strict=False)):
        if here != there:
            return f"its class {place + 1} is {there}, not {here}"
    if len(ours.class_names) != len(theirs.class_names):
        return f"it has {len(theirs.class_names)} classes, not {len(ours.class_names)}"
    own, other = first.model.state_dict(), member.model.state_dict()
    if names := find_mismatches(own, other):
        here, there = (_shape(tensors, names[0]) for tensors in (own, other))
        return f"its {names[0]} is {there}, not {here}"
    for name in _SCALE:
        if name in own and not torch.equal(own[name], other[name]):
            return f"its {name} is {other[name].item():.6g}, not {own[name].item():.6g}"
    return ""


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    """ "2 x 3", or "missing" """
    return " x ".join(map(str, tensors[name].shape)) or "a number" if name in tensors else "missing"


def average_tensors(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of tensors of equal names and shapes, computed in float64, in the type of the first.

    Integers, such as the batches that a batch norm has seen, are those of the first.
    """
    first, *others = states
    averaged = {}
    for name, tensor in first.items():
        if others and tensor.is_floating_point():
            total = tensor.double()
            for other in others:
                total = total + other[name].double()
            averaged[name] = (total / len(states)).to(tensor.dtype)
        else:
            averaged[name] = tensor
    return averaged


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Batch-norm layers with running statistics."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    return [layer for layer in layers if layer.running_mean is not None]


@torch.no_grad()
def update_batch_norm(model: nn.Module, images: Tensor, batch_size: int) -> None:
    """Compute the running statistics of batch norms again (Izmailov 2018, section 3.2).

    images: uint8 (N, 1, H, W), at least two. They are the means over batches of equal size of the
    batches' mean and unbiased variance; images beyond the last whole batch are left out. Other
    layers, such as dropout, stay in eval mode. Raises UserError if they are not finite.
    """
    layers = batch_norms(model)
    momenta = [layer.momentum for layer in layers]
    # one value a channel has no variance
    size = min(max(batch_size, 2), len(images))
    device = next(model.parameters()).device
    model.eval()
    try:
        for layer in layers:
            layer.reset_running_stats()
            # cumulative mean
            layer.momentum = None
            layer.train()
        for start in range(0, len(images) - size + 1, size):
            model(images[start : start + size].to(device))
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
    if spoiled := find_not_finite(model.state_dict()):
        raise UserError(
            f"the batch-norm statistics of the average are not finite ({list_first(spoiled)}): its "
            "checkpoints are too different to be averaged, leave some out"
        )
