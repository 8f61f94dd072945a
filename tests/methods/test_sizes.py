"""Networks of a fixed size at other image sizes, by the table of docs/backbones.md.

The whole table by `make test-families`, two of its cells here.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.image_sizes import FAMILIES, cells, outcome
from core.models.backbone import model_settings
from core.models.checkpoint import save_tensors
from methods import load_model
from tests.helpers.training.small_run import ROOT, module

PAGE = (ROOT / "docs/backbones.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("method", "network", "size", "expected"),
    [("csra_db_cas", "test_vit", 96, "yes"), ("standard_head", "test_vit", 72, "no, 64")],
)
def test_sizes(method: str, network: str, size: int, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert outcome(method, network, size, path) == expected
    assert path.exists() == (expected == "yes")
    if expected == "yes":
        model: Any = load_model(path).module
        assert model.backbone.network.pos_embed.shape[1] == 1 + (size // 16) ** 2


def test_a_checkpoint_of_an_earlier_version_has_timms_size(tmp_path: Path) -> None:
    """Its network of timm's 160 px, which resamples in each forward, was trained on 96 px."""
    config = module("standard_head", "config").ModelConfig(model="test_vit", pretrained=False)
    model = module("standard_head", "model").build_model(config, 2).eval()
    facts: dict[str, Any] = {"class_names": ["a", "b"], "img_size": 96}
    facts |= {"method": "standard_head", "model": model_settings(config, sized=False)}
    save_tensors(tmp_path / "a.safetensors", model.state_dict(), facts)
    loaded: Any = load_model(tmp_path / "a.safetensors").module
    assert loaded.backbone.network.pos_embed.shape[1] == 1 + 10**2
    images = torch.randint(0, 256, (2, 1, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))


@pytest.mark.families
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("family", [name for name in FAMILIES if f"| {name}: `" in PAGE])
def test_the_table_of_sizes(family: str, tmp_path: Path) -> None:
    assert "| " + " | ".join(cells(family, tmp_path)) + " |" in PAGE.splitlines()
