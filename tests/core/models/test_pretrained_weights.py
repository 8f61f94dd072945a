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


def prefixed(prefix: str, *others: str) -> Callable[[Tensors], Tensors]:
    """Tensors as part of a larger model, which has others beside them."""
    return lambda own: (
        {f"{prefix}{name}": one for name, one in own.items()}
        | {name: torch.ones(3) for name in others}
    )


def two_sets(own: Tensors) -> Tensors:
    """Weights and their average, as in a checkpoint of self-distillation."""
    student = {f"student.backbone.{name}": torch.zeros_like(one) for name, one in own.items()}
    return student | prefixed("teacher.backbone.")(own)


def sibling(**options: Any) -> Callable[[Tensors], Tensors]:
    return lambda _: tensors_of(**options)


def renamed(pattern: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda own: {re.sub(pattern, new, name): one for name, one in own.items()}


def old_densenet_in_a_model(own: Tensors) -> Tensors:
    return prefixed("model.")(renamed(r"(denselayer\d+\.\w+?)([12])\.", r"\1.\2.")(own))


def torchvision_convnext(own: Tensors) -> Tensors:
    """Names and shapes of torchvision 0.29."""
    parts = {"conv_dw": "block.0", "norm": "block.2", "mlp.fc1": "block.3", "mlp.fc2": "block.5"}
    found = {}
    for name, one in own.items():
        if block := re.match(r"stages\.(\d)\.blocks\.(\d+)\.(.*?)(?:\.(weight|bias))?$", name):
            stage, number, part, kind = block.groups()
            inner = f"{parts[part]}.{kind}" if kind else "layer_scale"
            found[f"features.{2 * int(stage) + 1}.{number}.{inner}"] = (
                one if kind else one[:, None, None]
            )
        else:
            name = re.sub(r"^stem\.", "features.0.", name)
            name = re.sub(r"^stages\.(\d)\.downsample", lambda m: f"features.{2 * int(m[1])}", name)
            found[name.replace("head.norm", "classifier.0").replace("head.fc", "classifier.2")] = (
                one
            )
    return found


FAULTS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "few": (few, r"66 of 78 tensors missing \(blocks\..* and 63 more\)"),
    "one less": (without(NORM), rf"1 of 78 tensors missing \({NORM}\)"),
    "classifier": (only("head.weight", "head.bias"), "78 of 78 tensors missing"),
    "of another": (sibling(model="test_vit3"), r"\d+ of 78 tensors"),
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
    "parallel": (MODEL, prefixed("module.")),
    "compiled": (MODEL, prefixed("_orig_mod.module.")),
    # the reference code of csra_db_cas, and a checkpoint of this project
    "published": (MODEL, prefixed("backbone.", "bn.weight", "head.0.weight")),
    "checkpoint": (MODEL, prefixed("backbone.network.", "backbone.mean")),
    "two sets": (MODEL, two_sets),
    "open_clip": (MODEL, prefixed("visual.trunk.", "text.a", "logit_scale")),
    "pretrained": (MODEL, prefixed("", "decoder_embed.bias", "mask_token")),
    "average pooled": (MODEL, renamed(r"^norm\.", "fc_norm.")),
    "old densenet": ("densenet121", renamed(r"(denselayer\d+\.\w+?)([12])\.", r"\1.\2.")),
    "old densenet in a model": ("densenet121", old_densenet_in_a_model),
    "torchvision": ("test_convnext", torchvision_convnext),
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
    if kind not in ("another classifier", "one channel", "half precision"):
        given = tensors_of(model)
    # the first layer is adapted to one channel
    names = [name for name in found if name in given and found[name].shape == given[name].shape]
    assert len(names) > 0.9 * len(found) - 4
    assert all(torch.equal(found[name].float(), given[name].float()) for name in names)
    if kind == "tied":
        for part in ("weight", "bias"):
            copy = found[f"serial_blocks1.0.cpe.proj.{part}"]
            assert torch.equal(copy, given[f"cpe1.proj.{part}"])


def test_the_line_of_what_was_loaded(tmp_path: Path) -> None:
    """Also at another size, with position embeddings resampled by timm."""
    own = tensors_of(img_size=96)
    save_file(prefixed("backbone.", "bn.weight")(own), tmp_path / "w.safetensors")
    network = Backbone(BackboneConfig(model=MODEL), tmp_path / "w.safetensors").network
    assert network.weights_summary == (
        "78 tensors of backbone.*, 1 resampled (pos_embed), "
        "1 summed to one channel (patch_embed.proj.weight); "
        "left over: 3 (backbone.head.bias, backbone.head.weight, bn.weight)"
    )
    summed = own["patch_embed.proj.weight"].sum(1, keepdim=True)
    assert torch.allclose(network.patch_embed.proj.weight, summed, atol=1e-6)


@pytest.mark.parametrize(
    "model", ["resnet34", "convnextv2_atto", "mobilenetv3_large_100", "deit3_base_patch16_224"]
)
def test_the_nearest_model_is_named(model: str, tmp_path: Path) -> None:
    tensors = prefixed("model.")(tensors_of(model, num_classes=14))
    with pytest.raises(UserError, match=rf"its tensors are those of {model}$"):
        load(tmp_path / "w.safetensors", tensors)
