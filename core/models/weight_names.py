"""Names of tensors in foreign weights: the prefix of the backbone, and layouts that timm lacks."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

# Name in the file -> name in timm. Parts of one tensor end in #0, #1, ... and are concatenated.
_TRANSFORMERS = (
    # DINOv2 and ViT; in files of transformers 5 the layers have other names
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.(mask_token|register_tokens)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    (r"\.attention\.(?:attention\.)?q(?:uery|_proj)\.(\w+)$", r".attn.qkv.\1#0"),
    (r"\.attention\.(?:attention\.)?k(?:ey|_proj)\.(\w+)$", r".attn.qkv.\1#1"),
    (r"\.attention\.(?:attention\.)?v(?:alue|_proj)\.(\w+)$", r".attn.qkv.\1#2"),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.(?:intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.(?:output\.dense|mlp\.weights_out)\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)
_TORCHVISION_CONVNEXT = (
    (r"^features\.0\.", "stem."),
    (r"^features\.2\.", "stages.1.downsample."),
    (r"^features\.4\.", "stages.2.downsample."),
    (r"^features\.6\.", "stages.3.downsample."),
    (r"^features\.1\.(\d+)\.", r"stages.0.blocks.\1."),
    (r"^features\.3\.(\d+)\.", r"stages.1.blocks.\1."),
    (r"^features\.5\.(\d+)\.", r"stages.2.blocks.\1."),
    (r"^features\.7\.(\d+)\.", r"stages.3.blocks.\1."),
    (r"\.block\.0\.", ".conv_dw."),
    (r"\.block\.2\.", ".norm."),
    (r"\.block\.3\.", ".mlp.fc1."),
    (r"\.block\.5\.", ".mlp.fc2."),
    (r"\.layer_scale$", ".gamma"),
    (r"^classifier\.0\.", "head.norm."),
    (r"^classifier\.2\.", "head.fc."),
)
# for networks that fuse query, key and value, and the halves of SwiGLU
_EVA_SEPARATE = (
    (r"\.attn\.q_proj\.weight$", ".attn.qkv.weight#0"),
    (r"\.attn\.k_proj\.weight$", ".attn.qkv.weight#1"),
    (r"\.attn\.v_proj\.weight$", ".attn.qkv.weight#2"),
    (r"\.mlp\.w1\.(\w+)$", r".mlp.fc1.\1#0"),
    (r"\.mlp\.w2\.(\w+)$", r".mlp.fc1.\1#1"),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
)
_LAYOUTS = ((), _TRANSFORMERS, _TORCHVISION_CONVNEXT, _EVA_SEPARATE)
_AVERAGED = re.compile(r"(^|\.|_)(teacher|ema)(\.|_)")
# parts that a network for features lacks: heads, text encoders, decoders
_HEADS = re.compile(
    r"(\w*head\w*|fc|classifier\w*|pooler|proj\w*|decoder\w*|lm_head|logit_\w+|op_threshs|text\w*)"
    r"(\.|$)|(.*\.)?mask_token$"
)

# of a hostile file there may be thousands
_DEEPEST, _MOST_PREFIXES = 8, 16

Convert = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Selected:
    """Tensors of a file that belong to the backbone, by timm's names or those that it converts."""

    tensors: dict[str, Tensor]
    prefix: str
    """Their prefix in the file, or ""."""
    others: list[str]
    """Names of the tensors outside of it."""


def select_backbone(
    tensors: Mapping[str, Tensor], wanted: Collection[str], convert: Convert = dict
) -> Selected:
    """Select the tensors under the prefix, and rename them by the layout, that fit most `wanted`.

    `convert` is timm's own conversion, for layouts that are not known here.
    """
    best = max(
        (
            (len({name.partition("#")[0] for name in names.values()} & set(wanted)), prefix, names)
            for prefix in _prefixes(tensors, len(wanted))
            for names in (_renamed(tensors, prefix, layout) for layout in _LAYOUTS)
        ),
        key=lambda one: (one[0], bool(_AVERAGED.search(one[1]))),
    )
    hits, prefix, names = best
    if hits < len(wanted) / 2:
        prefix = _prefix_of_conversion(tensors, wanted, convert, hits, prefix)
        if prefix != best[1]:
            names = _renamed(tensors, prefix, ())
    parts: dict[str, dict[str, Tensor]] = {}
    for name, new in names.items():
        target, _, part = new.partition("#")
        parts.setdefault(target, {})[part] = tensors[name]
    joined = {name: _join(name, given) for name, given in parts.items()}
    return Selected(joined, prefix, [name for name in tensors if name not in names])


def is_head(name: str) -> bool:
    """Whether a tensor that the network lacks belongs to a head or another part of a model."""
    return _HEADS.match(name) is not None


def _prefixes(names: Iterable[str], wanted: int) -> list[str]:
    """Prefixes of half as many names as are wanted, and "", which comes first."""
    counts: Counter[str] = Counter()
    for name in names:
        places = islice(re.finditer(r"\.", name), _DEEPEST)
        counts.update(name[: found.end()] for found in places)
    likely = [prefix for prefix, n in counts.most_common(_MOST_PREFIXES) if n >= wanted / 2]
    return ["", *likely]


def _renamed(
    names: Iterable[str], prefix: str, layout: tuple[tuple[str, str], ...]
) -> dict[str, str]:
    """New name of each name with the prefix."""
    found = {name: name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    for pattern, new in layout:
        found = {name: re.sub(pattern, new, now) for name, now in found.items()}
    return found


def _prefix_of_conversion(
    tensors: Mapping[str, Tensor], wanted: Collection[str], convert: Convert, hits: int, best: str
) -> str:
    """The prefix under which timm's conversion fits more tensors than `hits`, else `best`."""
    for prefix in _prefixes(tensors, len(wanted)):
        names = _renamed(tensors, prefix, ())
        try:
            found = convert({new: tensors[name] for name, new in names.items()})
        # it raises any exception for tensors of another network
        except Exception:
            continue
        if len(found.keys() & set(wanted)) > hits:
            hits, best = len(found.keys() & set(wanted)), prefix
    return best


def _join(name: str, parts: Mapping[str, Tensor]) -> Tensor:
    tensors = [parts[part] for part in sorted(parts)]
    # parts of different shapes are refused with the others
    if len(tensors) > 1 and len({one.shape[1:] for one in tensors}) == 1 and tensors[0].ndim:
        return torch.cat(tensors)
    # layer scales (C, 1, 1) of torchvision
    return tensors[0].flatten() if name.endswith(".gamma") else tensors[0]
