"""`--init_from`: tensors taken from another run's checkpoint, by hand-written tensors."""

import hashlib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

import core.models.starting_weights
from core.errors import UserError
from core.models.checkpoint import load_tensors, save_tensors
from core.models.init_from import InitialWeights, class_dimensions, find_initial_weights
from methods import ModelInfo
from tests.helpers.training.small_run import METHODS, MODEL, contents, flags, module

Train = Callable[..., tuple[int, str, str]]
# what a model is built with, by method; small enough to write down
OPTIONS: dict[str, dict[str, Any]] = {
    "standard_head": {},
    "csra_db_cas": {"csra_heads": 2},
    "label_coupling": {},
}


def build(method: str, classes: int, seed: int, **options: Any) -> nn.Module:
    """A model in which each number of the head is another one."""
    torch.manual_seed(seed)
    config = module(method, "config").ModelConfig(
        model=MODEL, pretrained=False, **OPTIONS[method] | options
    )
    model = module(method, "model").build_model(config, classes)
    for value in model.head.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.randn_like(value))
    return model


def initial(method: str, source: nn.Module, theirs: str, ours: str, of: str = "") -> InitialWeights:
    """That of a checkpoint with classes `theirs` for a run with classes `ours`, one letter each."""
    info = ModelInfo(of or method, tuple(theirs), 32, {})
    return InitialWeights(Path("a.safetensors"), info, source.state_dict(), method, tuple(ours))


def head_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.get_submodule("head").state_dict().items()}


def test_a_backbone_of_another_image_size_is_resampled() -> None:
    def vit(size: int) -> nn.Module:
        part = module("standard_head", "model")
        config = module("standard_head", "config").ModelConfig(model="test_vit")
        return part.build_model(config, 2, img_size=size)

    source, model = vit(64), vit(96)
    message = initial("standard_head", source, "AB", "AB").copy_into(model)
    assert "tensors, resampled to this size)" in message
    given, found = (one.get_parameter("backbone.network.pos_embed") for one in (source, model))
    assert (given.shape[1], found.shape[1]) == (17, 37)
    torch.testing.assert_close(found, resample_abs_pos_embed(given, [6, 6], num_prefix_tokens=1))
    name = "backbone.network.blocks.0.mlp.fc1.weight"
    assert torch.equal(source.get_parameter(name), model.get_parameter(name))


# --- rows by name -------------------------------------------------------------------------------

# here, there: another order, fewer, more, some of both
CLASSES = [("CAB", "ABC"), ("BD", "ABCD"), ("XBAY", "AB"), ("XCA", "ABC"), ("A", "A")]
# tensors with one row per class, by hand
ROWS = {
    "standard_head": ["6.weight", "6.bias"],
    "csra_db_cas": ["attention.weight", "attention.scale", "attention.bias"],
    "label_coupling": ["classifier.weight", "classifier.bias"],
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("ours", "theirs"), CLASSES)
def test_rows_are_matched_by_class_name(method: str, ours: str, theirs: str) -> None:
    source, model = build(method, len(theirs), seed=1), build(method, len(ours), seed=2)
    before, given = head_of(model), head_of(source)
    message = initial(method, source, theirs, ours).copy_into(model)
    after = head_of(model)
    for name in ROWS[method]:
        # heads x classes x features
        rows = [one.movedim(1, 0) if one.ndim == 3 else one for one in (after[name], given[name])]
        start = before[name].movedim(1, 0) if before[name].ndim == 3 else before[name]
        for place, label in enumerate(ours):
            if label in theirs:
                assert torch.equal(rows[0][place], rows[1][theirs.index(label)])
            else:
                assert torch.equal(rows[0][place], start[place])
    for name in after.keys() - set(ROWS[method]) - {"coupling.A"}:
        assert torch.equal(after[name], given[name]), name
    shared = [label for label in ours if label in theirs]
    assert f"head rows of {len(shared)} of {len(ours)} classes ({', '.join(shared)})" in message
    new = [label for label in ours if label not in theirs]
    assert message.endswith(f"; new: {', '.join(new)}." if new else ").")


def test_couplings_are_matched_along_both_sides() -> None:
    source, model = build("label_coupling", 3, seed=1), build("label_coupling", 3, seed=2)
    there = torch.tensor([[0.0, 1, 2], [3, 0, 5], [6, 7, 0]])
    source.get_parameter("head.coupling.A").data.copy_(there)
    model.get_parameter("head.coupling.A").data.zero_()
    initial("label_coupling", source, "ABC", "CXA").copy_into(model)
    # from C to A was in the third row and first column
    expected = torch.tensor([[0.0, 0, 6], [0, 0, 0], [2, 0, 0]])
    assert torch.equal(model.get_parameter("head.coupling.A").data, expected)


@pytest.mark.parametrize("method", METHODS)
def test_every_dimension_of_classes_is_declared(method: str) -> None:
    """Those that differ between models of seven and eleven classes."""
    seven, eleven = (head_of(build(method, classes, seed=0)) for classes in (7, 11))
    differing = {
        name: tuple(d for d, n in enumerate(seven[name].shape) if n != eleven[name].shape[d])
        for name in seven
    }
    found = {name: dimensions for name, dimensions in differing.items() if dimensions}
    assert class_dimensions(build(method, 5, seed=0).get_submodule("head")) == found


# --- the backbone, and heads of other kinds -----------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("other", METHODS)
def test_the_backbone_is_taken_from_any_method(method: str, other: str) -> None:
    source, model = build(other, 3, seed=1), build(method, 3, seed=2)
    before, backbone = head_of(model), source.get_submodule("backbone").state_dict()
    message = initial(method, source, "ABC", "ABC", of=other).copy_into(model)
    for name, value in model.get_submodule("backbone").state_dict().items():
        assert torch.equal(value, backbone[name])
    assert f"Starts from a.safetensors: backbone ({len(backbone)} tensors)" in message
    if method != other:
        assert message.endswith(f"; new head, as that of the checkpoint is of {other}.")
        after = head_of(model)
        assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_head_of_other_settings_is_new() -> None:
    source, model = (build("csra_db_cas", 3, seed=n, csra_heads=n) for n in (1, 2))
    before = head_of(model)
    message = initial("csra_db_cas", source, "ABC", "AB").copy_into(build("csra_db_cas", 2, 3))
    assert "its attention.weight is 1 x 3 x " in message
    assert "there and would be 2 x 3 x " in message
    initial("csra_db_cas", source, "ABC", "ABC").copy_into(model)
    assert all(torch.equal(head_of(model)[name], value) for name, value in before.items())


@pytest.mark.parametrize("heads", [("mlp", "linear"), ("linear", "mlp")])
def test_a_head_of_other_layers_is_fresh(heads: tuple[str, str]) -> None:
    source, model = (build("standard_head", 3, seed=n, head=head) for n, head in enumerate(heads))
    before = head_of(model)
    message = initial("standard_head", source, "ABC", "ABC").copy_into(model)
    assert "; new head, as that of the checkpoint has other layers (" in message
    assert all(torch.equal(head_of(model)[name], value) for name, value in before.items())
    alike = build("standard_head", 2, seed=2, head=heads[0])
    assert "head rows of 2 of 2" in initial("standard_head", source, "ABC", "CA").copy_into(alike)
    dimensions = class_dimensions(alike.get_submodule("head"))
    (name,) = (name for name in dimensions if name.endswith("weight"))
    assert torch.equal(head_of(alike)[name], head_of(source)[name][[2, 0]])


@pytest.mark.parametrize("refined", [False, True])
def test_a_refiner_that_only_one_has(refined: bool) -> None:
    source = build("label_coupling", 2, seed=1, refiner=not refined)
    model = build("label_coupling", 2, seed=2, refiner=refined)
    before, given = head_of(model), head_of(source)
    message = initial("label_coupling", source, "AB", "AB").copy_into(model)
    assert torch.equal(head_of(model)["classifier.weight"], given["classifier.weight"])
    if refined:
        assert torch.equal(head_of(model)["coupling.A"], before["coupling.A"])
    end = "; new: coupling.A." if refined else ". Left out: coupling.A."
    assert message.endswith(f"2 of 2 classes (A, B){end}")


def test_another_backbone_is_refused() -> None:
    source, model = build("standard_head", 2, seed=1), build("standard_head", 2, seed=2)
    start = initial("standard_head", source, "AB", "AB")
    start.tensors["backbone.network.conv_stem.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"does not fit .*: network\.conv_stem\.weight differ"):
        start.copy_into(model)


# --- whole runs ---------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(finished: tuple[Path, str]) -> Path:
    return finished[0] / f"{MODEL}_fold1.safetensors"


def test_a_run_starts_from_the_weights_of_another_run(
    checkpoint: Path, train: Train, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With learning rates of nothing it is left with what it took; no hub is asked."""
    never = Mock(side_effect=AssertionError("ImageNet weights were looked for"))
    monkeypatch.setattr(core.models.starting_weights, "_fetch", never)
    rates = ["--backbone_lr", 1e-30, "--head_lr", 1e-30, "--warmup_head_epochs", 0]
    options = ["--labels", "Mass,Effusion", "--run_folds", 1, "--epochs", 1, *rates, "--pretrained"]
    given = [word for word in flags(phantom, tmp_path / "out") if word != "--no-pretrained"]
    code, printed, error = train(*given, *options, "--init_from", checkpoint)
    assert code == 0, error
    assert f"Starts from {checkpoint}: backbone (" in printed
    assert "head rows of 2 of 2 classes (Mass, Effusion)" in printed
    assert "Warning: that checkpoint was trained or validated on images of" in printed
    theirs, facts = load_tensors(checkpoint)
    ours, own_facts = load_tensors(tmp_path / "out" / f"{MODEL}_fold1.safetensors")
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    origin = {"name": "--init_from", "file": checkpoint.name, "sha256": digest}
    assert own_facts["starting_weights"] == origin
    rows = [facts["class_names"].index(name) for name in ("Mass", "Effusion")]
    expected = theirs["head.6.weight"][rows]
    torch.testing.assert_close(ours["head.6.weight"], expected, rtol=0, atol=1e-6)
    stem = "backbone.network.conv_stem.weight"
    torch.testing.assert_close(ours[stem], theirs[stem], rtol=0, atol=1e-6)


def changed(checkpoint: Path, folder: Path, *, nan: bool = False, **facts: Any) -> Path:
    """Copy of the checkpoint with other metadata or a weight of NaN."""
    tensors, old_facts = load_tensors(checkpoint)
    if nan:
        tensors["head.6.bias"][0] = torch.nan
    path = folder / "changed.safetensors"
    save_tensors(path, tensors, old_facts | facts)
    return path


def test_what_cannot_be_started_from_is_refused_before_anything_is_written(
    checkpoint: Path, phantom: Path, tmp_path: Path, train: Train
) -> None:
    out, folder, missing = tmp_path / "out", tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    before, spoiled = contents(checkpoint.parent), changed(checkpoint, tmp_path, nan=True)
    for path, to, sentence in (
        (missing, out, "is not there: give a checkpoint (.safetensors)"),
        (folder, out, "is a folder: give a checkpoint (.safetensors)"),
        (spoiled, out, "holds weights that are not finite (1 of 102 tensors: head.6.bias)"),
        (checkpoint, checkpoint.parent, "is in --out_dir"),
    ):
        code, _, error = train(*flags(phantom, to, "--init_from", path))
        assert (code, error.count("\n")) == (2, 1), sentence
        assert sentence in error
    assert not out.exists()
    assert contents(checkpoint.parent) == before


def find(path: Path, model: str = MODEL, **data: Any) -> InitialWeights:
    """What a run of `model` for one class, on the tables of `data`, takes from `path`."""
    config = module("standard_head", "config").Config()
    for name, value in data.items():
        setattr(config.data, name, value)
    config.model.model, config.model.init_from = model, path
    found = find_initial_weights("standard_head", config, ["Effusion"])
    assert found is not None
    return found


def test_another_network_is_refused_but_not_another_tag(checkpoint: Path) -> None:
    assert find(checkpoint, f"{MODEL}.r160_in1k").tensors
    expected = "has --model test_efficientnet and this run --model test_convnext: give the same"
    with pytest.raises(UserError, match=expected):
        find(checkpoint, "test_convnext")


def test_a_table_used_by_both_runs_is_reported_in_any_role(
    checkpoint: Path, tmp_path: Path
) -> None:
    for settings in (None, 5, {"train_csv": {"a": 1}}, {"train_csv": [None, "\0"]}):
        assert find(changed(checkpoint, tmp_path, settings=settings)).warning == ""
    for theirs, ours in product(("train_csv", "val_csv"), repeat=2):
        seen = {"train_csv": ["a.csv"], "val_csv": []} | {theirs: [str(Path("seen.csv").resolve())]}
        path = changed(checkpoint, tmp_path, settings=seen)
        given: dict[str, Any] = {"train_csv": (Path("b.csv"),), "val_csv": ()}
        assert find(path, **given).warning == ""
        warning = find(path, **given | {ours: (Path("seen.csv"),)}).warning
        assert (
            "Warning: that checkpoint was trained or validated on images of seen.csv too" in warning
        )
