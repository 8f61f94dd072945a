"""Files of pretrained weights: loading, and errors with names and counts."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.config.training import BackboneConfig
from core.errors import UserError
from core.models.backbone import Backbone
from tests.helpers.training.small_run import flags

Train = Callable[..., tuple[int, str, str]]
Tensors = dict[str, Tensor]
# timm's own miniature: 78 tensors and a classifier
MODEL = "test_vit"
NORM = "blocks.1.norm1.weight"


def tensors_of(model: str = MODEL, **options: Any) -> Tensors:
    """Random weights of a colour network, as a file of timm's holds them."""
    torch.manual_seed(0)
    network = timm.create_model(model, pretrained=False, **options)
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def load(path: Path, tensors: Tensors, model: str = MODEL, pooled: bool = True) -> Tensors:
    """State of the network made with these tensors."""
    save_file(tensors, path)
    return Backbone(BackboneConfig(model=model), path, pooled=pooled).network.state_dict()


def few(tensors: Tensors) -> Tensors:
    return {name: tensors[name] for name in list(tensors)[:12]}


def only(*names: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensors[name] for name in names}


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {n: tensor for n, tensor in tensors.items() if n != name}


def filled(value: float, dtype: torch.dtype = torch.float32) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {NORM: torch.full_like(tensors[NORM], value, dtype=dtype)}


def prefixed(tensors: Tensors) -> Tensors:
    return {f"backbone.{name}": tensor for name, tensor in tensors.items()}


def sibling(**options: Any) -> Callable[[Tensors], Tensors]:
    return lambda _: tensors_of(**options)


FAULTS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "few": (few, r"66 of 78 tensors missing \(blocks\..* and 63 more\)"),
    "one less": (without(NORM), rf"1 of 78 tensors missing \({NORM}\)"),
    "classifier": (only("head.weight", "head.bias"), "78 of 78 tensors missing"),
    "prefix": (prefixed, r"78 of 78 tensors missing .*; 80 unknown to this network \(backbone\."),
    # six blocks of twelve tensors
    "deeper": (sibling(depth=8), r"24 unknown to this network \(blocks\.6\..* and 21 more\)"),
    "shallower": (sibling(depth=5), r"12 of 78 tensors missing \(blocks\.5\..* and 9 more\)"),
    "wider": (sibling(embed_dim=128), r"78 of 78 tensors of another shape or type"),
    "extra": (lambda own: own | {"extra": torch.ones(2)}, r"1 unknown to this network \(extra\)"),
    "NaN": (filled(torch.nan), rf"1 of 78 tensors not finite \({NORM}\)"),
    "infinity": (filled(-torch.inf, torch.float16), rf"1 of 78 tensors not finite \({NORM}\)"),
    "too large": (filled(1e300, torch.float64), rf"1 of 78 tensors not finite \({NORM}\)"),
    "integers": (filled(1, torch.int8), rf"1 of 78 tensors of another shape or type \({NORM}\)"),
}


def refusal(fault: str) -> tuple[Tensors, str]:
    """Tensors with that fault, and the sentence that refuses a file w.safetensors of them."""
    change, sentence = FAULTS[fault]
    return change(tensors_of()), rf"w\.safetensors does not hold weights of {MODEL}: {sentence}"


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_do_not_fill_the_network(fault: str, tmp_path: Path) -> None:
    tensors, sentence = refusal(fault)
    with pytest.raises(UserError, match=sentence):
        load(tmp_path / "w.safetensors", tensors)


def test_they_are_refused_before_anything_is_written(
    train: Train, phantom: Path, tmp_path: Path
) -> None:
    path, out = tmp_path / "w.safetensors", tmp_path / "out"
    tensors, sentence = refusal("few")
    save_file(tensors, path)
    options = ["--model", MODEL, "--img_size", 160, "--weights_file", path, "--pretrained"]
    code, _, error = train(*flags(phantom, out, *options))
    assert (code, error.count("\n")) == (2, 1)
    assert re.search(sentence, error), error
    assert not out.exists()


def tied(tensors: Tensors) -> Tensors:
    """As safetensors' own writer of models leaves a file: each tied tensor once."""
    return {name: t for name, t in tensors.items() if ".cpe.proj." not in name}


SOUND: dict[str, tuple[str, Callable[[Tensors], Tensors]]] = {
    "whole": (MODEL, lambda own: own),
    "no classifier": (MODEL, lambda own: without("head.weight")(without("head.bias")(own))),
    "another classifier": (MODEL, sibling(num_classes=5)),
    "one channel": (MODEL, sibling(in_chans=1)),
    "half precision": (MODEL, lambda own: {name: t.half() for name, t in own.items()}),
    "parallel": (MODEL, lambda own: {f"module.{name}": t for name, t in own.items()}),
    # pretrained by reconstruction: no norm in front of a classifier
    "no head": ("test_convnext", lambda own: {n: t for n, t in own.items() if "head." not in n}),
    "no counters": ("test_resnet", lambda own: {n: t for n, t in own.items() if t.ndim}),
    # its own pooling has a norm behind it, which a map has in front
    "another pooling": ("test_vit2", lambda own: own),
    "tied": ("coat_lite_tiny", tied),
}


@pytest.mark.parametrize("kind", SOUND)
def test_weights_that_fill_the_network(kind: str, tmp_path: Path) -> None:
    model, change = SOUND[kind]
    given = change(tensors_of(model))
    found = load(tmp_path / "w.safetensors", given, model, pooled=kind != "another pooling")
    given = {name.removeprefix("module."): tensor.float() for name, tensor in given.items()}
    # the first layer is adapted to one channel
    names = [name for name in found if name in given and found[name].shape == given[name].shape]
    assert len(names) > 0.9 * len(given) - 4
    assert all(torch.equal(found[name].float(), given[name]) for name in names)
    if kind == "tied":
        for part in ("weight", "bias"):
            copy = found[f"serial_blocks1.0.cpe.proj.{part}"]
            assert torch.equal(copy, given[f"cpe1.proj.{part}"])
