"""Whole runs on a GPU: training, resume, prediction, ONNX."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from core.models.checkpoint import load_facts
from ensemble.exporting.graph import EnsembleGraph
from ensemble.exporting.onnx import largest_difference, write_onnx
from ensemble.predict.config import MergeConfig, ModelsConfig
from ensemble.predict.ensemble import Ensemble
from ensemble.predict.predictor import Predictor
from tests.conftest import Call, Train
from tests.helpers.training.gpu import DEVICE, NEEDS_GPU, fabric, refusing_waits, state_file
from tests.helpers.training.small_run import METHODS, MODEL, flags
from tests.helpers.training.stopped_training import stopped_at

pytestmark = NEEDS_GPU
# more epochs of the head than cached passes
CACHED = ("--run_folds", "1", "--epochs", "1", "--head_views", "1", "--freeze_backbone")


def checkpoint(folder: Path) -> Path:
    """Checkpoint of the first fold."""
    return folder / f"{MODEL}_fold1.safetensors"


@pytest.mark.parametrize("method", METHODS)
def test_a_run_stops_resumes_and_predicts(
    method: str,
    phantom: Path,
    tmp_path: Path,
    train_method: Callable[[str], Train],
    infer: Call,
) -> None:
    straight, out, train = tmp_path / "straight", tmp_path / "out", train_method(method)
    fold = ("--run_folds", "1", "--num_workers", "1")
    code, printed, error = train(*flags(phantom, straight, *fold))
    assert code == 0, error
    assert f"on 1 x {DEVICE}" in printed
    stopped_at(train, 2, *flags(phantom, out, *fold))
    assert train(*flags(phantom, out, *fold))[0] == 0
    # sums on a GPU have no fixed order
    ours, theirs = (pd.read_csv(one / "metrics.csv") for one in (out, straight))
    assert ours["train_loss"].tolist() == pytest.approx(theirs["train_loss"].tolist(), rel=0.05)
    predictions = tmp_path / "p.csv"
    words = ("--image_dir", phantom / "images", "--output", predictions)
    assert infer("--checkpoints", checkpoint(out), *words)[0] == 0
    found = pd.read_csv(predictions).iloc[:, 1:].to_numpy()
    assert ((found > 0) & (found < 1)).all()


def test_a_head_trains_on_cached_features(phantom: Path, tmp_path: Path, train: Train) -> None:
    out = tmp_path / "out"
    code, _, error = train(*flags(phantom, out, *CACHED), "--warmup_head_epochs", "3")
    assert code == 0, error
    losses = pd.read_csv(out / "metrics.csv")["train_loss"]
    assert len(losses) == 4
    assert np.isfinite(losses).all()


def test_a_dry_run_reports_the_memory_of_the_gpu(
    phantom: Path, tmp_path: Path, train: Train
) -> None:
    code, printed, error = train(*flags(phantom, tmp_path / "out"), "--dry_run")
    assert code == 0, error
    assert f"of tensors on {DEVICE}:0" in printed


def test_fp16_resumes_at_its_scale(
    phantom: Path, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scaled(**_: object) -> Fabric:
        scaler = torch.amp.GradScaler(DEVICE, init_scale=2.0**40)
        return fabric(plugins=MixedPrecision("16-mixed", DEVICE, scaler=scaler))

    monkeypatch.setattr("core.training.run.make_fabric", scaled)
    straight, out = tmp_path / "straight", tmp_path / "out"
    fold = ("--run_folds", "1", "--warmup_head_epochs", "0", "--epochs", "3")
    assert train(*flags(phantom, straight, *fold))[0] == 0
    stopped_at(train, 2, *flags(phantom, out, *fold))
    assert load_facts(state_file(out))["scale"]["scale"] == 2.0**38
    assert train(*flags(phantom, out, *fold))[0] == 0
    skipped = [pd.read_csv(one / "timing.csv")["skipped"].tolist() for one in (straight, out)]
    assert skipped[0] == skipped[1]
    assert skipped[0][0] >= 2
    scales = [load_facts(state_file(one))["scale"] for one in (straight, out)]
    assert scales[0] == scales[1]


def test_onnx_of_a_model_on_the_gpu(finished: tuple[Path, str], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    ensemble = Ensemble.load(ModelsConfig(checkpoints=(checkpoint(finished[0]),)))
    merge = MergeConfig(tta_config="flip")
    size = ensemble.sizes[0]
    graph = EnsembleGraph(ensemble, merge, None).to(DEVICE)
    example = torch.zeros(2, 1, size, size, dtype=torch.uint8, device=DEVICE)
    write_onnx(tmp_path / "m.onnx", graph, example, {})
    predictor = Predictor(fabric(), ensemble, merge)

    def predict(pixels: np.ndarray) -> np.ndarray:
        return predictor.merge_models(predictor([torch.from_numpy(pixels)]).astype(np.float64))

    noise = np.random.default_rng(0).integers(0, 256, (5, 1, size, size), dtype=np.uint8)
    found = largest_difference(tmp_path / "m.onnx", predict, [noise], integers=True, bound=1e-3)
    assert found <= 1e-3


def test_passes_of_a_model_do_not_wait(finished: tuple[Path, str]) -> None:
    ensemble = Ensemble.load(ModelsConfig(checkpoints=(checkpoint(finished[0]),)))
    predictor = Predictor(fabric("bf16-mixed"), ensemble, MergeConfig(tta_config="flip"))
    (member,), size = ensemble.members, ensemble.sizes[0]
    images = torch.zeros(2, 1, size, size, dtype=torch.uint8).pin_memory()
    predictor([images])
    with torch.no_grad(), predictor.fabric.autocast(), refusing_waits():
        member.model(images.to(DEVICE, non_blocking=True))
