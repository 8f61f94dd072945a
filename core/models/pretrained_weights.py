"""Check of pretrained weights: the file fills every tensor of the backbone with finite values."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import safe_open
from torch import Tensor, nn

from core.errors import UserError, list_first
from core.models.checkpoint import find_not_finite


@contextmanager
def checked_loading(path: Path, model: str) -> Iterator[None]:
    """Check the weights in `path` while timm loads them into its network `model`.

    timm renames the tensors of a file, loads those that fit, and ignores missing and extra ones.
    The check runs between these steps. Raises UserError with names and counts.
    """
    load: Callable[..., Any] = nn.Module.load_state_dict

    def checked_load(network: nn.Module, tensors: Mapping[str, Tensor], **_: Any) -> Any:
        if faults := _describe(_find_faults(network, tensors, names, model)):
            raise _refusal(path, model, faults)
        return load(network, tensors, strict=False)

    names: set[str] = set()
    nn.Module.load_state_dict = checked_load  # type: ignore[assignment, method-assign]
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
        yield
    except UserError:
        raise
    # timm's adapters raise any exception for tensors of another network
    except Exception as error:
        wanted = _backbone_names(model) if names else set()
        missing = _describe({f"of {len(wanted)} tensors missing": wanted - names})
        raise _refusal(path, model, missing or first_line(error)) from error
    finally:
        nn.Module.load_state_dict = load  # type: ignore[method-assign]


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if that is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _find_faults(
    network: Any, tensors: Mapping[str, Tensor], names: set[str], model: str
) -> dict[str, Collection[str]]:
    """Names of tensors by fault; `names` are those in the file, `tensors` the adapted ones.

    The classifier and integer tensors are not checked.
    """
    wanted = _floats(network.state_dict())
    common = wanted.keys() & tensors.keys()
    # tied tensors have several names; one of them is enough
    filled = {wanted[name].data_ptr() for name in common}
    missing = {name for name in wanted.keys() - common if wanted[name].data_ptr() not in filled}
    extra = _floats(tensors).keys() - wanted.keys() - dict(network.named_buffers()).keys()
    if missing or extra:
        # a network without pooling may end in a norm that the weights lack
        standard = _backbone_names(model)
        missing, extra = missing & standard, extra - standard - _classifier_names(network, extra)
    alike = {
        name
        for name in common
        if wanted[name].shape == tensors[name].shape and tensors[name].is_floating_point()
    }
    spoiled = find_not_finite({name: tensors[name] for name in common})
    return {
        f"of {len(wanted)} tensors missing": missing - names,
        f"of {len(wanted)} tensors not adaptable to one channel": missing & names,
        f"of {len(wanted)} tensors of another shape or type": common - alike,
        f"of {len(wanted)} tensors not finite": spoiled,
        "unknown to this network": extra,
    }


def _refusal(path: Path, model: str, reason: str) -> UserError:
    return UserError(
        f"{path} does not hold weights of {model}: {reason}: give the file of this --model"
    )


def _describe(faults: Mapping[str, Collection[str]]) -> str:
    """ "62 of 73 tensors missing (a, b, c and 59 more); 1 unknown to this network (d)" """
    found = {what: names for what, names in faults.items() if names}
    return "; ".join(f"{len(n):,} {what} ({list_first(sorted(n))})" for what, n in found.items())


def _floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def _backbone_names(model: str) -> set[str]:
    """Names of the tensors in timm's weights, without the classifier.

    Weights without a classifier may also lack the norm before it (FCMAE of ConvNeXtV2).
    """
    with torch.device("meta"):
        network = timm.create_model(model, pretrained=False)
    names = set(_floats(network.state_dict()))
    return names - _classifier_names(network, names)


def _classifier_names(network: Any, names: set[str]) -> set[str]:
    """Those of `names` that belong to the classifier or the norm before it."""
    layers = network.pretrained_cfg.get("classifier") or ()
    layers = (layers,) if isinstance(layers, str) else layers
    norms = [f"{layer.rpartition('.')[0]}.norm" for layer in layers if "." in layer]
    starts = tuple(f"{layer}." for layer in (*layers, *norms))
    return {name for name in names if name.startswith(starts)}
