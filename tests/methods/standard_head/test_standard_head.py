"""The standard head is the published one, and a checkpoint is enough to have it back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core.errors import UserError
from core.models import load
from core.models.backbone import Classifier, model_settings, restore_config
from core.models.checkpoint import save_tensors
from methods import load_model
from methods.standard_head.config import ModelConfig
from methods.standard_head.model import (
    StandardHead,
    build_model,
)

TINY = "test_efficientnet"
Model = Classifier[StandardHead]
CLASSES = ("Mass", "Pleural Thickening", "Ödem")


def tiny(drop_rate: float = 0.3) -> Model:
    torch.manual_seed(0)
    return build_model(ModelConfig(model=TINY, pretrained=False, drop_rate=drop_rate), len(CLASSES))


def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=generator)


# --- the head ----------------------------------------------------------------------------------


def test_structure_is_the_published_one() -> None:
    head = StandardHead(320, 14, drop_rate=0.3)
    kinds = [nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in head] == kinds
    sizes = {name: tuple(value.shape) for name, value in head.named_parameters()}
    assert sizes["0.weight"] == (320,)
    assert sizes["2.weight"] == (512, 320)
    assert sizes["4.weight"] == (512,)
    assert sizes["6.weight"] == (14, 512)
    assert sizes["6.bias"] == (14,)
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


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


def test_it_starts_at_the_prior() -> None:
    head = StandardHead(8, 3, drop_rate=0.3)
    prior = torch.tensor([0.5, 0.01, 0.2], dtype=torch.float64)
    head.start_at(torch.log(prior / (1 - prior)))
    bias = head.get_parameter("6.bias")
    torch.testing.assert_close(torch.sigmoid(bias.detach()).double(), prior)
    assert bias.requires_grad
    assert bias.is_leaf
    # features that say nothing give the prior itself
    nn.init.zeros_(head.get_parameter("6.weight"))
    probabilities = torch.sigmoid(head.eval()(torch.randn(4, 8)))
    torch.testing.assert_close(probabilities, prior.float().expand(4, 3))


# --- the model ---------------------------------------------------------------------------------


def test_forward_is_head_of_backbone() -> None:
    model = tiny().eval()
    with torch.no_grad():
        logits = model(images())
        assert logits.shape == (3, len(CLASSES))
        assert torch.equal(logits, model.head(model.backbone(images())))


def test_every_parameter_has_one_of_the_two_learning_rates() -> None:
    parts = {name.split(".")[0] for name, _ in tiny().named_parameters()}
    assert parts == {"backbone", "head"}


# --- a checkpoint is enough --------------------------------------------------------------------


def facts_of(config: ModelConfig | None = None) -> dict[str, Any]:
    return {
        "method": "standard_head",
        "model": model_settings(config or ModelConfig(model=TINY, drop_rate=0.1)),
        "class_names": list(CLASSES),
        "img_size": 32,
        "fold": 2,
        "epoch": 7,
    }


@pytest.fixture(scope="module")
def trained() -> Model:
    """A model whose every tensor has moved from where it starts."""
    model = tiny(drop_rate=0.1)
    for value in model.state_dict().values():
        if value.is_floating_point() and value.ndim:
            value.add_(torch.rand_like(value) * 0.1)
    return model.to(memory_format=torch.channels_last).eval()


@pytest.fixture
def checkpoint(tmp_path: Path, trained: Model) -> Path:
    path = tmp_path / "tiny_fold2.safetensors"
    save_tensors(path, trained.state_dict(), facts_of())
    return path


def test_a_checkpoint_is_enough(
    checkpoint: Path, trained: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives the same logits and describes itself, without the network."""

    def fail(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", fail)
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


def test_settings_of_a_checkpoint_make_the_same_model() -> None:
    config = ModelConfig(model=TINY, drop_rate=0.45, drop_path_rate=0.2, grad_checkpointing=True)
    model = build_model(restore_config(ModelConfig, model_settings(config)), 2)
    twin = build_model(config, 2)
    assert {n: t.shape for n, t in model.state_dict().items()} == {
        n: t.shape for n, t in twin.state_dict().items()
    }
    assert [layer.p for layer in model.head if isinstance(layer, nn.Dropout)] == [0.45, 0.45]


def refusal(folder: Path, facts: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> str:
    """Why a file is refused; a wrong description is, whatever its tensors."""
    path = folder / "wrong.safetensors"
    save_tensors(path, tensors or {}, facts)
    with pytest.raises(UserError) as refused:
        load_model(path)
    return str(refused.value)


@pytest.mark.parametrize(
    "method",
    [
        *("standard_hat", "../standard_head", "standard_head/../../core", "standard_head.config"),
        *("core", "os", "", ".", "__pycache__", None, 5, ["standard_head"]),
    ],
)
def test_only_a_method_that_is_here_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: object
) -> None:
    def fail(name: str) -> None:
        raise AssertionError(f"{name} was imported")

    monkeypatch.setattr(load.importlib, "import_module", fail)
    message = refusal(tmp_path, facts_of() | {"method": method})
    assert "wrong.safetensors" in message
    assert "standard_head" in message


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"model": TINY, "drop_rat": 0.1}},
        {"model": {"model": TINY, "pretrained": True}},
        {"model": {"model": "test_efficientnett"}},
        {"model": {"model": "hf-hub:someone/something"}},
        {"model": {"model": 5}},
        {"model": {"model": None}},
        {"model": {"model": [TINY]}},
        {"model": {"model": TINY, "drop_rate": 2}},
        {"model": {"model": TINY, "drop_rate": "much"}},
        {"model": "test_efficientnet"},
        {"img_size": "large"},
        {"class_names": 3},
    ],
    ids=str,
)
def test_a_description_that_is_wrong_is_an_error_of_the_user(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert "wrong.safetensors" in refusal(tmp_path, facts_of() | changes)


def test_a_description_that_lacks_something(tmp_path: Path) -> None:
    for name in ("method", "model", "class_names", "img_size"):
        facts = {key: value for key, value in facts_of().items() if key != name}
        assert "wrong.safetensors" in refusal(tmp_path, facts)


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "other classes"])
def test_tensors_that_do_not_fit(tmp_path: Path, trained: Model, change: str) -> None:
    tensors, facts = dict(trained.state_dict()), facts_of()
    if change == "missing":
        del tensors["head.6.bias"]
    elif change == "extra":
        tensors["head.7.weight"] = torch.zeros(1)
    elif change == "shape":
        tensors["head.6.bias"] = torch.zeros(len(CLASSES) + 1)
    else:
        facts["class_names"] = ["Mass"]
    assert "does not fit the model" in refusal(tmp_path, facts, tensors)


def test_a_file_that_is_missing_or_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        load_model(tmp_path / "nowhere.safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(UserError, match="no whole safetensors file"):
        load_model(tmp_path / "a.safetensors")
