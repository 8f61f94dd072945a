"""Check of pretrained weights: every tensor of the backbone comes from the file, and is finite."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import safe_open
from torch import Tensor, nn

from core.errors import UserError, list_first
from core.models.checkpoint import not_finite


@contextmanager
def checked_loading(path: Path, model: str) -> Iterator[None]:
    """Refuse weights that do not fill the network of timm's `model` while it is built.

    timm renames a file's tensors, loads those that fit, and ignores missing and extra ones. The
    check takes place between these steps. Raises UserError with names and counts.
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
    # timm's adapters raise anything on tensors of another network
    except Exception as error:
        wanted = _backbone_names(model) if names else set()
        missing = _describe({f"of {len(wanted)} tensors missing": wanted - names})
        raise _refusal(path, model, missing or first_line(error)) from error
    finally:
        nn.Module.load_state_dict = load  # type: ignore[method-assign]


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _find_faults(
    network: Any, tensors: Mapping[str, Tensor], names: set[str], model: str
) -> dict[str, Collection[str]]:
    """Names of tensors by what is wrong with them: a file has `names`, `tensors` when adapted.

    Left aside are the classifier, and counters and indexes, which are no floats.
    """
    wanted = _floats(network.state_dict())
    common = wanted.keys() & tensors.keys()
    # tied tensors have several names; one of them is enough
    filled = {wanted[name].data_ptr() for name in common}
    missing = {name for name in wanted.keys() - common if wanted[name].data_ptr() not in filled}
    extra = _floats(tensors).keys() - wanted.keys() - dict(network.named_buffers()).keys()
    if missing or extra:
        # without pooling a network may end in a norm that its weights do not have
        standard = _backbone_names(model)
        missing, extra = missing & standard, extra - standard - _classifier_names(network, extra)
    alike = {
        name
        for name in common
        if wanted[name].shape == tensors[name].shape and tensors[name].is_floating_point()
    }
    spoiled = not_finite({name: tensors[name] for name in common})
    return {
        f"of {len(wanted)} tensors missing": missing - names,
        f"of {len(wanted)} tensors not adaptable to one channel": missing & names,
        f"of {len(wanted)} tensors of another shape or type": common - alike,
        f"of {len(wanted)} tensors not finite": spoiled,
        "unknown to this network": extra,
    }


def _refusal(path: Path, model: str, reason: str) -> UserError:
    return UserError(
        f"{path} does not hold weights of {model}: {reason}: give this --model's own file"
    )


def _describe(faults: Mapping[str, Collection[str]]) -> str:
    """ "62 of 73 tensors missing (a, b, c and 59 more); 1 unknown to this network (d)" """
    found = {what: names for what, names in faults.items() if names}
    return "; ".join(f"{len(n):,} {what} ({list_first(sorted(n))})" for what, n in found.items())


def _floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def _backbone_names(model: str) -> set[str]:
    """The tensors of the network as timm's weights hold it, without the classifier.

    Weights without a classifier may lack the norm in front of it too (FCMAE's of ConvNeXtV2).
    """
    with torch.device("meta"):
        network = timm.create_model(model, pretrained=False)
    names = set(_floats(network.state_dict()))
    return names - _classifier_names(network, names)


def _classifier_names(network: Any, names: set[str]) -> set[str]:
    """Those of `names` that belong to the classifier, or to a norm beside it."""
    layers = network.pretrained_cfg.get("classifier") or ()
    layers = (layers,) if isinstance(layers, str) else layers
    norms = [f"{layer.rpartition('.')[0]}.norm" for layer in layers if "." in layer]
    starts = tuple(f"{layer}." for layer in (*layers, *norms))
    return {name for name in names if name.startswith(starts)}
