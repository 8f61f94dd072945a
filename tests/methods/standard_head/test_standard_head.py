"""Standard head as published, and its reconstruction from a checkpoint."""

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from core.errors import UserError
from core.models import load
from core.models.backbone import Classifier, model_settings, restore_config
from core.models.checkpoint import save_tensors
from methods import load_model
from methods.standard_head.config import ModelConfig
from methods.standard_head.model import Head, LinearHead, StandardHead, build_model

TINY = "test_efficientnet"
Model = Classifier[Head]
CLASSES = ("Mass", "Pleural Thickening", "Ödem")
FACTS: dict[str, Any] = {
    "method": "standard_head",
    "model": model_settings(ModelConfig(model=TINY, drop_rate=0.1)),
    "class_names": list(CLASSES),
    "img_size": 32,
    "fold": 2,
    "epoch": 7,
}


def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def trained() -> Model:
    """A model with every tensor changed from its start."""
    torch.manual_seed(0)
    model = build_model(ModelConfig(model=TINY, pretrained=False, drop_rate=0.1), len(CLASSES))
    for value in model.state_dict().values():
        if value.is_floating_point() and value.ndim:
            value.add_(torch.rand_like(value) * 0.1)
    return model.to(memory_format=torch.channels_last).eval()


def test_output_by_its_formula() -> None:
    torch.manual_seed(0)
    head = StandardHead(8, 3, drop_rate=0.5).eval()
    features = torch.randn(5, 8)
    for name, value in head.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + (0.5 if "running_var" in name else -0.2))
    state = head.state_dict()

    def norm(values: Tensor, layer: int) -> Tensor:
        centred = values - state[f"{layer}.running_mean"]
        scaled = centred / torch.sqrt(state[f"{layer}.running_var"] + 1e-5)
        return scaled * state[f"{layer}.weight"] + state[f"{layer}.bias"]

    hidden = norm(features, 0) @ state["2.weight"].T + state["2.bias"]
    truth = norm(hidden.clamp(min=0), 4) @ state["6.weight"].T + state["6.bias"]
    torch.testing.assert_close(head(features), truth, rtol=1e-4, atol=1e-4)


def test_a_linear_head_is_linear() -> None:
    """Its logits are an affine map of the features, fitted here by least squares."""
    torch.manual_seed(0)
    head = LinearHead(8, 3, drop_rate=0.5)
    head(5 * torch.randn(64, 8) + 2)
    features = torch.randn(40, 8, dtype=torch.float64)
    logits = head.double().eval()(features).detach()
    ones = torch.cat([features, torch.ones(40, 1, dtype=torch.float64)], dim=1)
    fitted = ones @ torch.linalg.lstsq(ones, logits).solution
    torch.testing.assert_close(fitted, logits, rtol=0, atol=1e-9)
    assert logits.std() > 0.1


@pytest.mark.parametrize(("kind", "last"), [(StandardHead, "6"), (LinearHead, "linear")])
def test_it_starts_at_the_prior(kind: type[StandardHead] | type[LinearHead], last: str) -> None:
    head = kind(8, 3, drop_rate=0.3)
    prior = torch.tensor([0.5, 0.01, 0.2], dtype=torch.float64)
    head.start_at(torch.log(prior / (1 - prior)))
    bias = head.get_parameter(f"{last}.bias")
    assert bias.requires_grad
    assert bias.is_leaf
    # uninformative features give the prior
    nn.init.zeros_(head.get_parameter(f"{last}.weight"))
    probabilities = torch.sigmoid(head.eval()(torch.randn(4, 8)))
    torch.testing.assert_close(probabilities, prior.float().expand(4, 3))


def test_a_checkpoint_is_enough(
    tmp_path: Path, trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives the same logits and describes itself, without the network."""

    def fail(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", fail)
    checkpoint = tmp_path / "tiny_fold2.safetensors"
    save_tensors(checkpoint, trained.state_dict(), FACTS)
    model, info = load_model(str(checkpoint))
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        truth = trained(images())
        assert truth.std() > 1e-3
        torch.testing.assert_close(model(images()), truth, rtol=1e-5, atol=1e-5)
        # bytes, or floats in [0, 1]
        torch.testing.assert_close(model(images() / 255), truth, rtol=1e-5, atol=1e-5)
    assert (info.method, info.class_names, info.image_size) == ("standard_head", CLASSES, 32)
    assert (info.facts["fold"], info.facts["epoch"]) == (2, 7)


@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_settings_of_a_checkpoint_make_the_same_model(head: Literal["mlp", "linear"]) -> None:
    config = ModelConfig(model=TINY, drop_rate=0.45, drop_path_rate=0.2, head=head)
    model = build_model(restore_config(ModelConfig, model_settings(config)), 2)
    twin = build_model(config, 2)
    assert {n: t.shape for n, t in model.state_dict().items()} == {
        n: t.shape for n, t in twin.state_dict().items()
    }
    dropouts = [layer.p for layer in model.head if isinstance(layer, nn.Dropout)]
    assert dropouts == [0.45] * (2 if head == "mlp" else 1)


def refusal(folder: Path, facts: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> str:
    """Why a file is refused; a wrong description is, whatever its tensors."""
    path = folder / "wrong.safetensors"
    save_tensors(path, tensors or {}, facts)
    with pytest.raises(UserError, match=r"wrong\.safetensors") as refused:
        load_model(path)
    return str(refused.value)


def test_only_a_method_that_is_here_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise AssertionError(f"{name} was imported")

    monkeypatch.setattr(load.importlib, "import_module", fail)
    others = ["standard_hat", "../standard_head", "standard_head/../../core", "core", "os", "", "."]
    for method in (*others, "standard_head.config", "__pycache__", None, 5, ["standard_head"]):
        assert "standard_head" in refusal(tmp_path, FACTS | {"method": method})


def test_a_description_that_is_wrong_or_lacks_something(tmp_path: Path) -> None:
    models = [
        *({"model": TINY, "drop_rat": 0.1}, {"model": TINY, "pretrained": True}),
        *({"model": TINY, "drop_rate": 2}, {"model": TINY, "drop_rate": "much"}, TINY),
        *({"model": name} for name in ("test_efficientnett", "hf-hub:some/thing", 5, None, [TINY])),
    ]
    changes: list[dict[str, Any]] = [{"model": model} for model in models]
    for change in [*changes, {"img_size": "large"}, {"class_names": 3}]:
        refusal(tmp_path, FACTS | change)
    for name in ("method", "model", "class_names", "img_size"):
        refusal(tmp_path, {key: value for key, value in FACTS.items() if key != name})


def test_tensors_that_do_not_fit(tmp_path: Path, trained: Model) -> None:
    tensors, bias = dict(trained.state_dict()), "head.6.bias"
    for facts, other in (
        (FACTS, {name: tensor for name, tensor in tensors.items() if name != bias}),
        (FACTS, tensors | {"head.7.weight": torch.zeros(1)}),
        (FACTS, tensors | {bias: torch.zeros(len(CLASSES) + 1)}),
        (FACTS | {"class_names": ["Mass"]}, tensors),
    ):
        assert "does not fit the model" in refusal(tmp_path, facts, other)
