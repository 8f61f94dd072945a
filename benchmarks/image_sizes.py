"""Networks of a fixed size at other image sizes: `python -m benchmarks.image_sizes`.

One small network of each family of timm, from random weights, at 64, 96, 160, 224 and its own
size, by the three methods in turn: refused before training with the nearest size, or two updates,
saved, loaded, with the same logits. Then, once a family, the ONNX graph and a heat map. Prints the
table of docs/backbones.md; about 50 s of processor time a family.
"""

import re
import tempfile
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.runner import start

# a small network by family
FAMILIES = {
    "ViT": "vit_tiny_patch16_224",
    "ViT + ResNet": "vit_tiny_r_s16_p8_224",
    "ViT, relative positions": "test_vit_relpos",
    "DeiT": "deit_tiny_distilled_patch16_224",
    "DeiT3": "deit3_small_patch16_224",
    "BEiTv2": "beitv2_base_patch16_224",
    "EVA02": "eva02_tiny_patch14_224",
    "DINOv2": "vit_small_patch14_dinov2",
    "DINOv3": "vit_tiny_patch16_dinov3_qkvb",
    "SAM": "samvit_base_patch16_224",
    "Swin": "swin_tiny_patch4_window7_224",
    "SwinV2": "swinv2_tiny_window8_256",
    "SwinV2-CR": "swinv2_cr_tiny_224",
    "MaxViT": "maxvit_rmlp_pico_rw_256",
    "CoAtNet": "test_coatnet",
    "CaiT": "cait_xxs24_224",
    "XCiT": "xcit_nano_12_p8_224",
    "MViTv2": "mvitv2_tiny",
    "Hiera": "hiera_tiny_224",
    "CrossViT": "crossvit_tiny_240",
    "CoaT": "coat_tiny",
    "ConViT": "convit_tiny",
    "TNT": "tnt_s_legacy_patch16_224",
    "PiT": "pit_ti_224",
    "LeViT": "levit_128s",
    "GCViT": "gcvit_xxtiny",
    "NesT": "nest_tiny",
    "Twins": "twins_svt_small",
    "VOLO": "volo_d1_224",
    "EfficientFormer": "efficientformer_l1",
    "EfficientViT": "efficientvit_m0",
    "gMLP": "gmlp_ti16_224",
}
SIZES = (64, 96, 160, 224)
METHODS = ("standard_head", "csra_db_cas", "label_coupling")
_CLASSES = ("a", "b")


def cells(family: str, folder: Path) -> list[str]:
    """Cells of a family's row: network, each of `SIZES`, own size, ONNX and heat map."""
    import timm

    network, place = FAMILIES[family], [*FAMILIES].index(family)
    config = timm.get_pretrained_cfg(network)
    assert config is not None
    own = config.input_size[-1]
    found, trained = [], []
    for turn, size in enumerate(dict.fromkeys((*SIZES, own))):
        method = METHODS[(place + turn) % len(METHODS)]
        path = folder / f"{method}_{size}.safetensors"
        found.append(f"{outcome(method, network, size, path)} ({method[0]})")
        trained += [path] if path.exists() else []
    if own in SIZES:
        found.append(str(own))
    else:
        found[-1] = f"{own}: {found[-1]}"
    # the smallest one, not of csra_db_cas, which has its own maps
    chosen = next((path for path in trained if "csra" not in path.name), None)
    more = ["-", "-"] if chosen is None else [export(chosen, folder), heat_map(chosen)]
    for path in trained:
        path.unlink()
    return [f"{family}: `{network}`", *found, *more]


def outcome(method: str, network: str, size: int, path: Path) -> str:
    """ "yes" if `network` trains, is saved in `path` and loads; else the nearest size or reason."""
    import torch
    from torch.nn import functional

    from core.errors import UserError
    from core.models.backbone import check_network, model_settings, refuse_size
    from core.models.checkpoint import save_tensors
    from core.models.network_size import SizeError
    from methods import load_model

    config = import_module(f"methods.{method}.config").ModelConfig(model=network, pretrained=False)
    torch.manual_seed(0)
    try:
        try:
            build: Any = import_module(f"methods.{method}.model").build_model
            model = build(config, len(_CLASSES), img_size=size)
        except SizeError as error:
            raise refuse_size(config, size, str(error)) from error
        check_network(model, network, size)
    except UserError as error:
        nearest = re.search(r"--img_size (\d+)", str(error).rpartition(":")[2])
        return f"no, {nearest[1]}" if nearest else "no map"
    images = torch.randint(0, 256, (2, 1, size, size), dtype=torch.uint8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    for _ in range(2):
        logits = model.train()(images)
        functional.binary_cross_entropy_with_logits(logits, torch.eye(2)).backward()
        optimizer.step()
        optimizer.zero_grad()
    facts: dict[str, Any] = {"method": method, "model": model_settings(config)}
    facts |= {"class_names": [*_CLASSES], "img_size": size}
    save_tensors(path, model.state_dict(), facts)
    with torch.no_grad():
        expected = model.eval()(images)
        found = load_model(path).module(images)
    return "yes" if torch.equal(found, expected) else "other logits"


def export(path: Path, folder: Path) -> str:
    """ "yes" if ONNX Runtime gives the probabilities of the checkpoint, else the refusal."""
    from core.errors import UserError
    from ensemble.exporting.config import Config
    from ensemble.exporting.export import Export
    from ensemble.predict.config import ModelsConfig
    from ensemble.predict.ensemble import Ensemble

    models = ModelsConfig(checkpoints=(path,))
    ensemble = Ensemble.load(models, "same")
    try:
        Export(
            config=Config(models=models), ensemble=ensemble, calibration=None, scores=[None]
        ).write(folder)
    except UserError:
        return "refused"
    return "yes"


def heat_map(path: Path) -> str:
    """ "yes" if a heat map of the checkpoint is not constant, else the refusal."""
    import torch

    from core.errors import UserError
    from ensemble.heatmaps.maps import heat_maps
    from methods import load_model

    model, info = load_model(path)
    images = torch.randint(0, 256, (4, 1, info.image_size, info.image_size), dtype=torch.uint8)
    try:
        maps = heat_maps(model, images, range(len(_CLASSES)))
    except UserError:
        return "refused"
    return "yes" if maps.std() > 0 else "constant"


def main(names: Sequence[str]) -> None:
    headings = ["family", *map(str, SIZES), "own size", "ONNX", "heat map"]
    print("| " + " | ".join(headings) + " |\n|" + " --- |" * len(headings))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for family in names:
            print("| " + " | ".join(cells(family, Path(folder))) + " |", flush=True)


if __name__ == "__main__":
    start(main, __doc__, FAMILIES)
