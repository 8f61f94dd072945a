"""Table of public weights: each row's file, made up with its names and shapes, is loaded whole."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

import core.models.starting_weights
import core.models.weights
from core.config.command_line import parse
from core.config.training import BackboneConfig
from core.errors import UserError
from core.models.backbone import Backbone
from core.models.starting_weights import Origin, find_weights
from core.models.weights import ROWS, PublicWeights, find_public_weights, weights_settings
from methods.standard_head.config import PRESETS
from tests.helpers.training.small_run import ROOT

Tensors = dict[str, Tensor]
ROW = {row.name: row for row in ROWS}
# one row of each architecture and layout
LOADED = [
    (name, layout) for (_, layout), name in {(r.model, r.layout): r.name for r in ROWS}.items()
]
TOKENS: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3}
# small widths; the names and the shapes that depend on the images are those of the real network
NARROW: dict[str, dict[str, Any]] = {
    "vit": TOKENS,
    "eva02": TOKENS,
    "convnext": {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)},
    "swin": {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)},
    "resnet50": {},
    "densenet121": {},
}
KINDS = ("weight", "bias")
HEAD = {"head.weight": torch.ones(2, 3), "head.bias": torch.ones(2)}


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def narrow(name: str, **options: Any) -> Any:
        return create(name, **NARROW[name.split("_")[0]] | options)

    monkeypatch.setattr(timm, "create_model", narrow)


def rename(own: Tensors, *rules: tuple[str, Any]) -> Tensors:
    found = {}
    for name, tensor in own.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        found[name] = tensor
    return found


def transformers(own: Tensors) -> Tensors:
    """Dinov2Model of transformers 4."""
    separate: Tensors = {}
    for name, tensor in own.items():
        parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
        fused = ".attn.qkv." in name
        separate |= (
            {name.replace(".attn.qkv.", f".attention.attention.{part}."): t for part, t in parts}
            if fused
            else {name: tensor}
        )
    return rename(
        separate | {"embeddings.mask_token": torch.zeros(1, 48)},
        (r"^(cls_token)", r"embeddings.\1"),
        (r"^pos_embed", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^blocks\.", "encoder.layer."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.ls(\d)\.gamma", r".layer_scale\1.lambda1"),
        (r"^norm\.", "layernorm."),
    )


def eva(own: Tensors) -> Tensors:
    """EVA-02 after masked image modelling: its norm, its SwiGLU, rotary positions, a mask token."""
    more = {"mask_token": torch.ones(1, 1, 48), "rope.freqs_cos": torch.ones(196, 16)}
    more |= {"lm_head.weight": torch.ones(3, 48), "lm_head.bias": torch.ones(3)}
    return more | rename(
        own,
        (r"^fc_norm\.", "norm."),
        (r"([qv])_proj\.bias", r"\1_bias"),
        (r"mlp\.fc1\.", "mlp.w12."),
        (r"mlp\.fc1_g\.", "mlp.w1."),
        (r"mlp\.fc1_x\.", "mlp.w2."),
        (r"mlp\.fc2\.", "mlp.w3."),
        (r"mlp\.norm\.", "mlp.ffn_ln."),
    )


def not_fused(own: Tensors) -> Tensors:
    """EVA-02 with query, key, value and the halves of SwiGLU apart."""
    found: Tensors = {}
    for name, tensor in eva(own).items():
        parts = {"attn.qkv.weight": [f"attn.{one}_proj.weight" for one in "qkv"]}
        parts |= {f"mlp.w12.{kind}": [f"mlp.w{n}.{kind}" for n in "12"] for kind in KINDS}
        whole = next((part for part in parts if name.endswith(part)), "")
        names = [name.replace(whole, part) for part in parts[whole]] if whole else [name]
        found |= dict(zip(names, tensor.chunk(len(names)) if whole else [tensor], strict=True))
    return found


def swin(own: Tensors) -> Tensors:
    """Swin of timm 0.5, which merged patches at the end of a stage, with heads of several tasks."""
    found: Tensors = {}
    for name, tensor in own.items():
        stage = re.match(r"layers\.(\d)\.downsample", name)
        old = name.replace(stage[0], f"layers.{int(stage[1]) - 1}.downsample") if stage else name
        found[old] = tensor
    found["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    found["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49).long()
    heads = {f"omni_heads.{task}.{part}": torch.ones(3) for task in "01" for part in ("bias", "w")}
    return found | heads | {"projector.weight": torch.ones(2, 2)}


def open_clip(own: Tensors) -> Tensors:
    text = {"text.transformer.embeddings.weight": torch.ones(9, 4), "logit_scale": torch.ones(())}
    head = {"visual.head.proj.weight": torch.ones(5, 48)}
    return {f"visual.trunk.{name}": tensor for name, tensor in own.items()} | head | text


LAYOUTS: dict[str, Callable[[Tensors], Tensors]] = {
    "timm": lambda own: own | HEAD,
    "transformers": transformers,
    "eva": eva,
    "eva, not fused": not_fused,
    "swin": swin,
    "open_clip": open_clip,
    "torchvision": lambda own: (
        own | {"fc.weight": torch.ones(2, 3), "classifier.bias": torch.ones(2)}
    ),
}


def settings(*words: object) -> Any:
    """Settings of a training by these flags."""
    given = ["--preset", "small", "--pretrained", *map(str, words)]
    return parse(PRESETS, arguments=given, public_weights=weights_settings)


def reference(row: PublicWeights) -> Any:
    """timm's own network of a row, with random weights."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"num_classes": 0}
    if row.model.startswith(("vit", "eva")):
        options["img_size"] = row.img_size
    if row.patch_size is not None:
        # rotary positions of pretraining: 224 px in patches of 16
        options |= {"patch_size": row.patch_size, "ref_feat_shape": (14, 14)}
    network = timm.create_model(row.model, in_chans=1 if "xrv" in row.name else 3, **options)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            # variances above 0
            tensor.copy_((torch.rand_like(tensor) - 0.5) / 8 + (tensor.ndim == 1))
    return network.eval()


@pytest.mark.parametrize(("name", "layout"), [*LOADED, ("eva-x-small", "eva, not fused")])
@torch.no_grad()
def test_a_file_of_each_row(name: str, layout: str, tmp_path: Path) -> None:
    row, path = ROW[name], tmp_path / "w.safetensors"
    theirs = reference(row)
    own = {n: tensor.clone() for n, tensor in theirs.state_dict().items()}
    given = LAYOUTS[layout](own)
    assert len(given) > len(own) - 1
    save_file({n: tensor.contiguous() for n, tensor in given.items()}, path)
    config = settings("--weights_name", name, "--weights_file", path)
    size = config.loader.img_size
    assert (config.model.model, size) == (row.model, row.img_size)
    weights, origin = find_weights(config.model)
    assert row.licence in origin.describe()
    ours = Backbone(config.model, weights, img_size=size).eval()
    found = ours.network.state_dict()
    assert found.keys() == own.keys()
    for one, tensor in found.items():
        same = own[one] if own[one].shape == tensor.shape else own[one].sum(1, keepdim=True)
        assert torch.allclose(tensor, same, rtol=0, atol=1e-6), one
    image = torch.randint(0, 256, (1, 1, size, size), dtype=torch.uint8)
    # else ImageNet's, the means over channels
    grey = (image / 255 - (row.mean or 0.449)) / (row.std or 0.226)
    expected = theirs(grey if "xrv" in name else grey.expand(-1, 3, -1, -1))
    features = ours(image)
    assert torch.allclose(features, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def transformers_5(own: Tensors) -> Tensors:
    """ViTForImageClassification of transformers 5, which has other names of layers."""
    return {
        f"vit.{name}": tensor
        for name, tensor in rename(
            transformers(own),
            (r"^encoder\.layer\.", "layers."),
            (r"\.attention\.attention\.(query|key|value)", r".attention.\1_proj"),
            (r"(query|key|value)_proj", lambda found: f"{found[1][0]}_proj"),
            (r"\.output\.dense\.", ".o_proj."),
            (r"\.norm1\.", ".layernorm_before."),
            (r"\.norm2\.", ".layernorm_after."),
        ).items()
    } | {"classifier.weight": torch.ones(2, 48)}


def vit_4(own: Tensors) -> Tensors:
    """ViTModel of transformers 4."""
    return rename(
        transformers(own),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
    ) | {"pooler.dense.weight": torch.ones(48, 48)}


def with_registers(own: Tensors) -> Tensors:
    """Dinov2WithRegistersModel, where the class token has a position too."""
    found = transformers(own)
    found["embeddings.register_tokens"] = found.pop("reg_token")
    positions = found["embeddings.position_embeddings"]
    found["embeddings.position_embeddings"] = torch.cat([torch.ones(1, 1, 48), positions], 1)
    found["embeddings.cls_token"] = found["embeddings.cls_token"] - 1
    return found


@pytest.mark.parametrize(
    ("model", "layout"),
    [
        ("vit_base_patch16_224", vit_4),
        ("vit_base_patch16_224", transformers_5),
        ("vit_small_patch14_reg4_dinov2", with_registers),
    ],
)
def test_names_of_transformers(
    model: str, layout: Callable[[Tensors], Tensors], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network: Any = timm.create_model(model, num_classes=0, img_size=224)
    own = {name: one.clone() for name, one in network.state_dict().items()}
    given = {n: one.clone() for n, one in layout({**own}).items()}
    save_file(given, tmp_path / "w.safetensors")
    config = BackboneConfig(model=model)
    found = Backbone(config, tmp_path / "w.safetensors", img_size=224).network.state_dict()
    assert found.keys() == own.keys()
    for name in own.keys() - {"patch_embed.proj.weight"}:
        assert torch.allclose(found[name], own[name], rtol=0, atol=1e-6), name


def test_rows_of_timm_agree_with_its_metadata() -> None:
    rows = [row for row in ROWS if row.repository.startswith("timm/")]
    assert len(rows) == 4
    for row in rows:
        source: Any = timm.get_pretrained_cfg(row.repository.removeprefix("timm/"))
        assert (source.hf_hub_id, source.license) == (row.repository, row.licence)
        assert source.input_size[-1] == row.img_size
        assert row.verified


def test_the_table_needs_no_torch() -> None:
    code = "import sys, core.models.weights; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_flags_and_a_file_of_settings_come_before_a_row(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text('{"weights_name": "rad-dino", "img_size": 448}')
    for config in (
        settings("--weights_name", "rad-dino", "--img_size", 448, "--std", 0.3),
        settings("--config", path, "--std", 0.3),
    ):
        assert (config.model.weights_name, config.model.model) == (
            "rad-dino",
            ROW["rad-dino"].model,
        )
        assert (config.loader.img_size, config.model.mean, config.model.std) == (
            448,
            (0.5307,),
            (0.3,),
        )
    same = settings("--weights_name", "eva-x-tiny", "--model", "eva02_tiny_patch14_224.mim_in22k")
    assert (same.model.patch_size, same.loader.img_size) == (16, 224)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--weights_name microsoft/rad-dno", "did you mean 'rad-dino'"),
        (
            "--weights_name rad-dino --no-pretrained",
            "--weights_name and --no-pretrained contradict",
        ),
        ("--weights_name rad-dino --init_from a", "--weights_name and --init_from contradict"),
    ],
)
def test_refused_flags(words: str, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        settings(*words.split())


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("rad-dino", ["model.safetensors of microsoft/rad-dino (revision main)"]),
        (
            "eva-x-tiny",
            ["eva_x_tiny_patch16_merged520k_mim.pt of", "python -m core.models.convert"],
        ),
        ("xrv-densenet121-nih", ["releases", "python -m core.models.convert", "prints"]),
    ],
)
def test_without_a_network_a_sentence_names_the_file(
    name: str, parts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core.models.starting_weights, "_fetch", lambda *_: None)
    with pytest.raises(UserError, match=f"by --weights_file beside --weights_name {name}") as found:
        find_weights(settings("--weights_name", name).model)
    assert [part for part in parts if part not in str(found.value)] == []


def test_a_file_with_another_sum_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"abc")
    row = replace(ROW["rad-dino"], sha256="0" * 64)
    monkeypatch.setattr(core.models.weights, "ROWS", (row,))
    monkeypatch.setattr(core.models.starting_weights, "_fetch", lambda *_: path)
    with pytest.raises(UserError, match="is not the file of --weights_name rad-dino"):
        find_weights(settings("--weights_name", "rad-dino").model)
    row = replace(row, sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    monkeypatch.setattr(core.models.weights, "ROWS", (row,))
    weights, origin = find_weights(settings("--weights_name", "rad-dino").model)
    assert (weights, origin.name, origin.licence) == (path, row.repository, row.describe_licence())
    assert Origin.read(origin.record()) == origin


def test_another_architecture_and_an_unknown_name() -> None:
    config = settings("--weights_name", "rad-dino", "--model", "resnet50").model
    with pytest.raises(UserError, match=r"is of vit_base_patch14_dinov2, .* has resnet50: "):
        find_weights(config)
    with pytest.raises(UserError, match="there is no --weights_name 'x'"):
        find_public_weights("x")


def test_the_page_has_every_row() -> None:
    page = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
    found = {}
    for line in page.splitlines():
        if line.startswith("| `") and "weights_name" not in line:
            _, named, *cells, _ = (cell.strip() for cell in line.split("|"))
            first, *more = re.findall(r"`([\w-]+)`", named)
            for name in (first, *(first.rpartition("-")[0] + ending for ending in more)):
                found[name] = cells
    assert found.keys() == {row.name for row in ROWS}
    for row in ROWS:
        network, *_, verified = found[row.name]
        assert network.endswith(f", {row.img_size}")
        assert verified == ("yes" if row.verified else "no")
