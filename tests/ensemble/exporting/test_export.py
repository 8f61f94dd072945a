"""`python -m ensemble.export`: what is handed on says what the checkpoints say, and no more."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from core.data.images.decode import load_image
from core.errors import UserError
from core.models.checkpoint import load_facts, load_tensors, save_tensors
from ensemble.exporting import onnx as export_onnx
from ensemble.exporting.graph import Merged
from ensemble.exporting.model_card import escaped
from ensemble.predict.calibration import Calibration, ClassCalibration, write_calibration
from ensemble.predict.config import MergeConfig
from ensemble.predict.ensemble import Ensemble, Member
from ensemble.predict.predictor import Predictor
from methods import ModelInfo, load_model
from tests.helpers.reference_predictions import said

Call = Callable[..., tuple[int, str, str]]
MAPS = {
    "temperature": ClassCalibration("temperature", {"temperature": 1.7}, 0.3, 0.2),
    "platt": ClassCalibration("platt", {"slope": 0.8, "offset": -0.4}, 0.6, 0.5),
    "identity": ClassCalibration("identity", {}),
}


def toy_members() -> list[Member]:
    """Two models of other weights, the second of other classes in another order."""
    torch.manual_seed(0)
    members: list[Member] = []
    for names in (("a", "b", "c"), ("c", "a")):
        last = nn.Linear(16, len(names))
        nn.init.normal_(last.weight, std=6)
        # of the class that it lacks, no trace may be in the maximum
        nn.init.constant_(last.bias, 6 * len(members))
        layers = [nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), last]
        model = nn.Sequential(*layers)
        members.append(Member(Path(names[0]), model.eval(), ModelInfo("toy", names, 24, {}), ""))
    return members


MODES = [
    *(("flip", "mean", mode) for mode in ("weighted_mean", "logit_mean", "gmean", "max")),
    ("heavy", "median", "weighted_mean"),
    ("flip_scale", "gmean", "median"),
    ("light", "logit_mean", "weighted_mean"),
    ("none", "max", "gmean"),
]


@pytest.mark.parametrize(("views", "merge", "mode"), MODES)
def test_the_graph_is_what_infer_does(views: str, merge: str, mode: str) -> None:
    members, names = toy_members(), ["a", "b", "c"]
    if mode == "median":
        members, names = [members[0], toy_members()[0], members[0]], ["a", "c"]
        for parameter in members[1].model.parameters():
            parameter.data.neg_()
    shares = np.array([0.3, 0.7, 0.0][: len(members)])
    images = torch.randint(0, 256, (3, 1, 24, 24), dtype=torch.uint8)
    ensemble = Ensemble(members, shares, names)
    settings: Any = {"tta_config": views, "tta_merge_mode": merge, "ensemble_mode": mode}
    merging = MergeConfig(**settings)
    calibration = Calibration(dict(zip("abc", MAPS.values(), strict=True)), None, 0)
    graph = Merged(ensemble, merging, calibration).eval()
    with torch.no_grad():
        found = graph(images)
        assert torch.equal(graph(images / 255), found)
    predictor = Predictor(Fabric(accelerator="cpu", devices=1), ensemble, merging)
    merged = predictor.merged(predictor([images]).astype(np.float64))
    np.testing.assert_allclose(found, calibration.apply(merged, names), atol=2e-5)
    assert found.std() > 0.05


@pytest.fixture
def calibration(checkpoints: list[Path], tmp_path: Path) -> Path:
    """A calibration.json with a map of each kind that a graph takes."""
    names = load_model(checkpoints[0])[1].class_names
    kinds = list(MAPS.values())
    classes = {name: kinds[place % 3] for place, name in enumerate(names)}
    path = tmp_path / "calibration.json"
    write_calibration(path, Calibration(classes, None, 0), {"labels": "/home/dr/labels.csv"})
    return path


def test_an_onnx_file_says_what_the_checkpoint_says(
    export: Call, checkpoints: list[Path], phantom: Path, calibration: Path, tmp_path: Path
) -> None:
    code, printed, error = export(
        *("--checkpoints", checkpoints[0], "--calibration", calibration, "--no-scores"),
        *("--image_dir", phantom / "images", "--test_csv", phantom / "test.csv"),
    )
    assert code == 0, error
    found = re.search(r"at most (\S+) on 8 images of noise; (\S+) on 16 images of X-rays", printed)
    assert found is not None
    assert max(float(found[1]), float(found[2])) <= 1e-5
    path = tmp_path / "out" / "model.onnx"
    session = onnxruntime.InferenceSession(path)
    facts = session.get_modelmeta().custom_metadata_map
    info = load_model(checkpoints[0])[1]
    names = list(info.class_names)
    assert json.loads(facts["class_names"]) == names
    assert facts["calibrated"] == "true"
    assert json.loads(facts["thresholds"]) == {
        name: [0.3, 0.6, None][place % 3] for place, name in enumerate(names)
    }
    assert session.get_inputs()[0].type == "tensor(uint8)"
    images = sorted((phantom / "images").iterdir())[:5]
    plain = said(checkpoints[0], images)
    logits = np.log(plain / (1 - plain))
    slopes, offsets = np.resize([1 / 1.7, 0.8, 1], len(names)), np.resize([0, -0.4, 0], len(names))
    expected = 1 / (1 + np.exp(-(slopes * logits + offsets)))
    pixels = np.stack([load_image(image, info.image_size) for image in images])[:, None]
    for count in (1, 2, 5):
        (probabilities,) = session.run(None, {"images": pixels[:count]})
        np.testing.assert_allclose(probabilities, expected[:count], atol=1e-5)
    told = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    whole = path.read_bytes() + told.encode()
    for private in (b"site-packages", bytes(Path(__file__).parents[3]), bytes(phantom)):
        assert private not in whole
    assert not onnx.load(path).graph.node[0].doc_string


def test_nothing_is_left_where_the_graph_differs(
    export: Call, checkpoints: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_model(checkpoints[1])[0]

    def write(path: Path, graph: nn.Module, images: torch.Tensor, _: object) -> None:
        """The graph of the other fold, by an exporter of its own."""
        with torch.no_grad():
            logits = other(images[:1])
        node = onnx.helper.make_node("Constant", [], ["probabilities"], value_floats=[0.5])
        put = onnx.helper.make_tensor_value_info(
            "images", onnx.TensorProto.UINT8, ["b", *images.shape[1:]]
        )
        got = onnx.helper.make_tensor_value_info(
            "probabilities", onnx.TensorProto.FLOAT, [logits.shape[0]]
        )
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [put], [got])), path)

    monkeypatch.setattr("ensemble.exporting.export.write_onnx", write)
    code, _, error = export("--checkpoints", checkpoints[0], "--no-scores")
    assert code == 2
    assert "ONNX Runtime differs from PyTorch by 1.0e+00 on a batch of 1" in error
    assert not (tmp_path / "out").exists()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_bound_is_on_the_largest_difference(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Cast", ["images"], ["probabilities"], to=onnx.TensorProto.FLOAT)
    put = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["b", 1, 1, 2])
    got = onnx.helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([node], "g", [put], [got])
    path = tmp_path / "m.onnx"
    onnx.save(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
        ),
        path,
    )
    batch = np.array([[[[0, 1]]]], dtype=np.uint8)

    def difference(off: float) -> float:
        def predict(pixels: np.ndarray) -> np.ndarray:
            return pixels + np.array([0, off])

        return export_onnx.largest_difference(path, predict, [batch], integers=True)

    for off in (0.0, 9e-5):
        assert difference(off) == pytest.approx(off, abs=1e-9)
    for off in (1.1e-4, np.nan):
        with pytest.raises(UserError, match=r"differs from PyTorch.*leave --calibration out, take"):
            difference(off)


def test_what_cannot_be_is_refused_with_its_reason(
    export: Call, checkpoints: list[Path], finished: tuple[Path, str], tmp_path: Path
) -> None:
    tensors, facts = load_tensors(checkpoints[0])
    facts.pop("format_version")
    save_tensors(tmp_path / "larger.safetensors", tensors, facts | {"img_size": 64})
    lonely = tmp_path / "run"
    lonely.mkdir()
    for path in finished[0].iterdir():
        if path.is_file() and not path.name.endswith("fold1_val.csv"):
            (lonely / path.name).write_bytes(path.read_bytes())
    one = ("--checkpoints", checkpoints[0])
    for flags, sentence in (
        (
            ("--checkpoints", checkpoints[0], tmp_path / "larger.safetensors"),
            "images of 32, 64 pix",
        ),
        ((*one, "--ensemble_mode", "rank_mean"), "rank_mean is for many images"),
        (("--checkpoints", lonely / checkpoints[0].name), "_fold1_val.csv is gone"),
        ((*one, "--format", "folder", "--input", "float"), "--input float is for --format onnx"),
        ((*one, "--output", finished[0], "--overwrite"), "holds what was not made here"),
    ):
        code, _, error = export(*flags)
        assert code == 2, flags
        assert sentence in error, error
        assert len(error.splitlines()) == 1
        assert not (tmp_path / "out").exists()
    assert load_facts(checkpoints[0])["img_size"] == 32


def test_a_missing_extra_is_told_with_its_command(
    export: Call, checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    code, _, error = export("--checkpoints", checkpoints[0])
    assert code == 2
    assert 'pip install -c constraints.txt -e ".[export]"' in error


def test_an_isotonic_map_is_told_and_not_applied(checkpoints: list[Path]) -> None:
    from ensemble.exporting.graph import fits_graph

    isotonic = ClassCalibration("isotonic", {"knots": [0.1, 0.2], "values": [0.0, 1.0]}, 0.5, 0.5)
    assert not fits_graph(Calibration({"a": MAPS["platt"], "b": isotonic}, None, 0), ["a", "b"])
    assert fits_graph(Calibration({"a": MAPS["platt"], "b": isotonic}, None, 0), ["a"])


def test_names_cannot_act_in_a_card() -> None:
    assert escaped("a|b") == r"a\|b"
    assert escaped("<script>&[x](y)") == r"&lt;script>&amp;\[x\](y)"
    assert escaped("Pleural_Thickening") == "Pleural_Thickening"
