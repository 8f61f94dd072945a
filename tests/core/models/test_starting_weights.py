"""Starting weights: origin, offline use, and their record in a run."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
from huggingface_hub import HfApi
from safetensors.torch import save_file

import core.models.starting_weights
import core.models.weights
from core.config.training import BackboneConfig
from core.doctor.checkpoints import check_checkpoint
from core.errors import UserError
from core.models.backbone import Backbone
from core.models.checkpoint import load_facts, load_tensors, save_tensors
from core.models.starting_weights import Origin, find_weights
from core.models.weights import find_public_weights
from ensemble.export import main as export
from tests.conftest import Call, Train
from tests.helpers.doctor import findings_of, marked
from tests.helpers.training.small_run import MODEL, flags

TINY = "test_convnext"


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Disable the hub and empty the cache; return the requested repositories."""
    asked: list[str] = []

    def fail(_: HfApi, repository: str, **__: Any) -> None:
        asked.append(repository)
        raise ConnectionError("no route to host")

    monkeypatch.setattr(core.models.starting_weights, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(HfApi, "model_info", fail)
    return asked


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("resnet10t", ["timm/resnet10t.c3_in1k"]),
        # an old name of timm
        ("tf_efficientnet_b4_ns", ["timm/tf_efficientnet_b4.ns_jft_in1k"]),
        # without weights anywhere
        ("efficientnet_b8", []),
    ],
)
def test_unreachable_weights_are_an_error_that_names_what_helps(
    model: str, asked: list[str], unreachable: list[str]
) -> None:
    with pytest.raises(UserError, match=rf"{model}.*--weights_file.*--no-pretrained"):
        find_weights(BackboneConfig(model=model))
    assert unreachable == asked


@pytest.mark.parametrize("kind", ["cache", "file", "untrained", "init_from"])
def test_what_needs_no_hub(
    kind: str, unreachable: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"abc")
    # of FIPS 180-2
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    config, name = BackboneConfig(model=TINY), f"timm/{TINY}.r160_in1k"
    if kind == "cache":
        asked = lambda *_: str(path)  # noqa: E731
        monkeypatch.setattr(core.models.starting_weights, "try_to_load_from_cache", asked)
    elif kind == "file":
        config, name = BackboneConfig(model=TINY, weights_file=path), "--weights_file"
    elif kind == "untrained":
        config = BackboneConfig(model=TINY, pretrained=False)
    else:
        config, name = BackboneConfig(model=TINY, init_from=path), "--init_from"
    weights, origin = find_weights(config)
    assert weights == (path if kind in ("cache", "file") else None)
    # in timm's metadata
    licence = "apache-2.0" if kind == "cache" else ""
    known = Origin(name, "model.safetensors", digest, licence=licence)
    assert origin == (Origin("none") if kind == "untrained" else known)
    assert Origin.read(origin.record()) == origin
    assert unreachable == []


def test_weights_files_that_are_refused(tmp_path: Path) -> None:
    missing = BackboneConfig(model=TINY, weights_file=tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"--weights_file .*w\.safetensors is not there"):
        find_weights(missing)
    for name in ("w.pth", "w.pt", "w.bin", "w"):
        (tmp_path / name).touch()
        config = BackboneConfig(model=TINY, weights_file=tmp_path / name)
        command = r"python -m core\.models\.convert \S+/w\S* w\.safetensors"
        with pytest.raises(UserError, match=rf"must be a \.safetensors file.*{command}"):
            find_weights(config)
        with pytest.raises(UserError, match="contradict"):
            replace(config, pretrained=False).check()


@pytest.mark.parametrize("record", [None, {}, [1], {"name": "a"}, {"name": "a" * 300}])
def test_an_invalid_record(record: object) -> None:
    assert Origin.read(record) is None


def test_a_run_records_its_starting_weights_and_resumes_without_them(
    train: Train, call: Call, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace(
        find_public_weights("rad-dino"),
        name="tiny",
        model=MODEL,
        mean=0.25,
        std=0.5,
        licence="free",
        terms="for tests",
    )
    monkeypatch.setattr(core.models.weights, "ROWS", (row,))
    weights, out = tmp_path / "w.safetensors", tmp_path / "out"
    save_file(timm.create_model(MODEL, pretrained=False).state_dict(), weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    words = flags(phantom, out, "--epochs", 1, "--weights_file", weights, "--pretrained")
    words += ["--weights_name", "tiny"]
    code, printed, error = train(*words)
    assert code == 0, error
    origin = "--weights_file w.safetensors as tiny"
    assert f"Licence of the weights {origin}: free (not verified); for tests." in printed
    assert f"Starting weights: {origin}: " in printed
    record = {"name": "--weights_file", "file": "w.safetensors", "sha256": digest}
    record |= {"weights_name": "tiny", "licence": "free (not verified)"}
    best = out / f"{MODEL}_fold2.safetensors"
    assert load_facts(best)["starting_weights"] == record
    assert json.loads((out / "env.json").read_text())["starting_weights"] == record
    settings = json.loads((out / "config.json").read_text())
    assert (settings["weights_name"], settings["mean"], settings["std"]) == ("tiny", [0.25], [0.5])
    assert load_tensors(best)[0]["backbone.mean"] == 0.25
    in_words = f"{origin}, licence free (not verified), SHA-256 {digest}"
    assert in_words in (out / "report.html").read_text()
    assert in_words in marked(findings_of(check_checkpoint, best), "✓")
    hub = tmp_path / "hub"
    assert call(export, "--checkpoints", best, "--format", "folder", "--output", hub)[0] == 0
    assert in_words in (hub / "README.md").read_text()

    # each fold has its state: the file is not needed, and the record stays
    weights.unlink()
    code, printed, error = train(*words)
    assert (code, printed.count("finished before")) == (0, 2), error
    assert json.loads((out / "env.json").read_text())["starting_weights"] == record
    # older versions recorded no licence
    environment = json.loads((out / "env.json").read_text())
    for name in ("weights_name", "licence"):
        del environment["starting_weights"][name]
    (out / "env.json").write_text(json.dumps(environment))
    # a fold without a state needs it, and the same one
    (out / f"{MODEL}_fold2.state.safetensors").unlink()
    code, _, error = train(*words)
    assert (code, f"--weights_file {weights} is not there" in error) == (2, True)
    save_file(timm.create_model(MODEL, pretrained=False).state_dict(), weights)
    code, _, error = train(*words)
    assert (code, "differs in the file of its starting weights" in error) == (2, True)


def test_a_checkpoint_gives_its_scale_and_licence(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    """As --weights_file, and the licence as --init_from too."""
    own = tmp_path / "own"
    scale = ("--mean", 0.4, "--std", 0.2)
    assert train(*flags(phantom, own, "--run_folds", 1, "--epochs", 1, *scale))[0] == 0
    path = own / f"{MODEL}_fold1.safetensors"
    tensors, facts = load_tensors(path)
    facts["starting_weights"] |= {"licence": "cc-by-nc-4.0", "weights_name": "some"}
    save_tensors(path, tensors, facts)
    settings = BackboneConfig(model=MODEL, weights_file=path)
    found, origin = find_weights(settings)
    assert (origin.licence, origin.weights_name) == ("cc-by-nc-4.0", "some")
    assert find_weights(BackboneConfig(model=MODEL, init_from=path))[1].licence == "cc-by-nc-4.0"
    backbone = Backbone(settings, found)
    assert (backbone.mean.item(), backbone.std.item()) == pytest.approx((0.4, 0.2))
    assert "; mean 0.4 and std 0.2 of the file" in str(backbone.network.weights_summary)
