"""Pretrained weights: the tensors of a file fill the whole backbone, or the file is refused."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models import _builder
from torch import Tensor

from core.errors import UserError, list_first, pluralize
from core.models.checkpoint import find_not_finite
from core.models.nearest_model import nearest_model
from core.models.weight_names import Selected, is_head, select_backbone

# those of the largest models of images and text are fewer
_MOST_TENSORS, _MOST_COMPARED = 20_000, 4_000
_LONGEST_NAME = 500


@contextmanager
def checked_loading(path: Path, model: str) -> Iterator[None]:
    """Check and rename the weights in `path` while timm loads them into its network `model`.

    timm converts the tensors of a file, loads those that fit, and ignores missing and extra ones.
    The check runs between these steps. The network gets a sentence, `weights_summary`. Raises
    UserError with names and counts.
    """
    builder: Any = _builder
    load_pretrained = builder.load_pretrained
    loadings: list[_Loading] = []

    def load(network: Any, pretrained_cfg: dict[str, Any], **options: Any) -> None:
        loading = _Loading(network, model, tensors, options.pop("filter_fn", None))
        loadings.append(loading)
        loading.select()
        # not a global change: this network alone
        network.load_state_dict = loading.load
        try:
            source = {"state_dict": loading.selected.tensors, "source": ""}
            load_pretrained(network, pretrained_cfg | source, filter_fn=loading.convert, **options)
        finally:
            del network.load_state_dict
        network.weights_summary = loading.summary

    tensors: dict[str, Tensor] = {}
    builder.load_pretrained = load
    # on names and channels, which the check covers
    notes = logging.getLogger(_builder.__name__)
    notes.disabled = True
    try:
        tensors = load_file(path)
        if len(tensors) > _MOST_TENSORS:
            raise _FaultyError(f"it has {len(tensors):,} tensors", foreign=False)
        if any(len(name) > _LONGEST_NAME for name in tensors):
            raise _FaultyError("the name of a tensor is too long", foreign=False)
        yield
        if not loadings:
            raise ValueError(f"timm has no loader for {model}")
    except _FaultyError as faults:
        raise _refusal(path, model, str(faults), tensors if faults.foreign else {}) from faults
    # timm's adapters raise any exception for tensors of another network
    except Exception as error:
        wanted = _backbone_names(model) if tensors else set()
        names = loadings[0].selected.tensors.keys() if loadings else set()
        missing = _describe({f"of {len(wanted)} tensors missing": wanted - names})
        raise _refusal(path, model, missing or first_line(error), tensors) from error
    finally:
        builder.load_pretrained = load_pretrained
        notes.disabled = False


class _FaultyError(Exception):
    """Tensors that do not fill a network; `foreign` if they are those of another one."""

    def __init__(self, text: str, foreign: bool) -> None:
        super().__init__(text)
        self.foreign = foreign


class _Loading:
    """Tensors of a file on their way into a network: selected, converted by timm, checked."""

    def __init__(
        self,
        network: Any,
        model: str,
        tensors: Mapping[str, Tensor],
        convert: Callable[..., Mapping[str, Tensor]] | None,
    ) -> None:
        self._network, self._model, self._file = network, model, tensors
        self._convert = convert
        self._wanted = _floats(network.state_dict())
        self._converted: Mapping[str, Tensor] = {}
        self.selected = Selected({}, "", [])
        self.summary = ""

    def select(self) -> None:
        """Select and rename the tensors of the backbone. Raises _FaultyError if there are none."""
        self.selected = select_backbone(self._file, self._wanted.keys(), self._call)
        tensors = self.selected.tensors
        if not tensors:
            raise _FaultyError("it has no tensors", foreign=False)
        names = self._wanted.keys()
        # fine-tuned with average pooling, which has its norm behind it
        if "norm.weight" in names - tensors.keys() and "norm.weight" in _backbone_names(
            self._model
        ):
            for part in ("weight", "bias"):
                if (norm := f"fc_norm.{part}") in tensors and norm not in names:
                    tensors[f"norm.{part}"] = tensors.pop(norm)

    def convert(self, tensors: dict[str, Tensor], *_: Any) -> Mapping[str, Tensor]:
        """timm's conversion for this architecture."""
        self._converted = self._call(dict(tensors))
        # timm adapts the first layer in the mapping that it gets
        return dict(self._converted)

    def load(self, tensors: Mapping[str, Tensor], **_: Any) -> Any:
        """Check the tensors, then load those of the network. Raises _FaultyError."""
        faults = {what: names for what, names in self._find_faults(tensors).items() if names}
        if faults:
            at_fault = sum(map(len, faults.values()))
            raise _FaultyError(_describe(faults), foreign=at_fault > len(self._wanted) / 10)
        loaded = {name: one for name, one in tensors.items() if name in self._wanted}
        scale = self._own_scale()
        self._network.pretrained_cfg = self._network.pretrained_cfg | scale
        self.summary = self._describe_loaded(loaded)
        if scale:
            self.summary += "; mean {mean[0]:.4g} and std {std[0]:.4g} of the file".format(**scale)
        own = self._network.state_dict().keys()
        known = {name: tensor for name, tensor in tensors.items() if name in own}
        return type(self._network).load_state_dict(self._network, known, strict=False)

    def _own_scale(self) -> dict[str, tuple[float]]:
        """Mean and standard deviation in a checkpoint of this project; {} of another file."""
        if self.selected.prefix != "backbone.network.":
            return {}
        names = ("mean", "std")
        given = [self._file.get(f"backbone.{name}", torch.tensor(torch.nan)) for name in names]
        if any(one.numel() != 1 or not one.isfinite().all() for one in given) or given[1] <= 0:
            return {}
        return {name: (float(one),) for name, one in zip(names, given, strict=True)}

    def _call(self, tensors: dict[str, Tensor]) -> Mapping[str, Tensor]:
        if self._convert is None:
            return tensors
        try:
            return self._convert(tensors, self._network)
        except TypeError:
            # some take the tensors alone
            return self._convert(tensors)

    def _find_faults(self, tensors: Mapping[str, Tensor]) -> dict[str, Collection[str]]:
        """Names of tensors by fault. Integer tensors are not checked."""
        network, wanted = self._network, self._wanted
        common = wanted.keys() & tensors.keys()
        # tied tensors have several names; one of them is enough
        filled = {wanted[name].data_ptr() for name in common}
        missing = {name for name in wanted.keys() - common if wanted[name].data_ptr() not in filled}
        extra = _floats(tensors).keys() - wanted.keys() - dict(network.named_buffers()).keys()
        if missing or extra:
            # a network without pooling may end in a norm that the weights lack
            standard = _backbone_names(self._model)
            missing, extra = missing & standard, extra - standard
            extra = {
                name for name in extra - _classifier_names(network, extra) if not is_head(name)
            }
        alike = {
            name
            for name in common
            if wanted[name].shape == tensors[name].shape and tensors[name].is_floating_point()
        }
        names = self.selected.tensors.keys()
        return {
            f"of {len(wanted)} tensors missing": missing - names,
            f"of {len(wanted)} tensors not adaptable to one channel": missing & names,
            f"of {len(wanted)} tensors of another shape or type": common - alike,
            f"of {len(wanted)} tensors not finite": find_not_finite(
                {name: tensors[name] for name in common}
            ),
            "unknown to this network": extra,
        }

    def _describe_loaded(self, loaded: Mapping[str, Tensor]) -> str:
        """ "152 tensors of backbone.*, 1 resampled (pos_embed); left over: 1 (head.bias)" """
        given = {_memory(one) for one in self.selected.tensors.values()}
        before = {name: _memory(self._converted[name]) for name in loaded}
        resampled = [name for name in loaded if before[name] not in given]
        summed = [name for name, one in loaded.items() if _memory(one) != before[name]]
        text = pluralize(len(loaded), "tensor")
        text += f" of {self.selected.prefix}*" if self.selected.prefix else ""
        for names, what in ((resampled, "resampled"), (summed, "summed to one channel")):
            text += f", {len(names)} {what} ({list_first(names)})" if names else ""
        floats, prefix = _floats(self._file).keys(), self.selected.prefix
        left = [name for name in self.selected.others if name in floats]
        left += [
            f"{prefix}{n}" for n in self._converted if n not in loaded and prefix + n in floats
        ]
        return text + (f"; left over: {len(left):,} ({list_first(sorted(left))})" if left else "")


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type if that is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _refusal(path: Path, model: str, reason: str, tensors: Mapping[str, Tensor]) -> UserError:
    nearest = nearest_model(tensors, model) if len(tensors) <= _MOST_COMPARED else None
    remedy = f"its tensors are those of {nearest}" if nearest else "give the file of this --model"
    return UserError(f"{path} does not hold weights of {model}: {reason}: {remedy}")


def _describe(faults: Mapping[str, Collection[str]]) -> str:
    """ "62 of 73 tensors missing (a, b, c and 59 more); 1 unknown to this network (d)" """
    found = {what: names for what, names in faults.items() if names}
    return "; ".join(f"{len(n):,} {what} ({list_first(sorted(n))})" for what, n in found.items())


def _floats(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


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
