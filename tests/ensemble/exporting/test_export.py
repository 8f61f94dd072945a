"""`python -m ensemble.export`: content and metadata of the exported files."""

import json
import re
import shutil
import sys
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
from ensemble.exporting.config import Config
from ensemble.exporting.export import Export
from ensemble.exporting.graph import EnsembleGraph
from ensemble.exporting.model_card import escaped
from ensemble.exporting.onnx import largest_difference
from ensemble.predict.calibration import (
    Calibration,
    Identity,
    Isotonic,
    Platt,
    Temperature,
    write_calibration,
)
from ensemble.predict.config import MergeConfig
from ensemble.predict.ensemble import Ensemble, Member
from ensemble.predict.predictor import Predictor
from methods import ModelInfo, load_model
from tests.conftest import Call
from tests.helpers.calls import output_of, refusal
from tests.helpers.infer_files import reference_probabilities

MAPS = {
    "temperature": Temperature(1.7, threshold=0.3, threshold_gated=0.2),
    "platt": Platt(0.8, -0.4, threshold=0.6, threshold_gated=0.5),
    "identity": Identity(),
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
    graph = EnsembleGraph(ensemble, merging, calibration).eval()
    with torch.no_grad():
        found = graph(images)
        assert torch.equal(graph(images / 255), found)
    predictor = Predictor(Fabric(accelerator="cpu", devices=1), ensemble, merging)
    merged = predictor.merge_models(predictor([images]).astype(np.float64))
    np.testing.assert_allclose(found, calibration.apply(merged, names), atol=2e-5)
    assert found.std() > 0.05


def test_an_onnx_file_has_the_metadata_of_the_checkpoint(
    export: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    info = load_model(checkpoints[0])[1]
    names, calibration = list(info.class_names), tmp_path / "calibration.json"
    kinds = list(MAPS.values())
    classes = {name: kinds[place % 3] for place, name in enumerate(names)}
    write_calibration(calibration, Calibration(classes, None, 0), {"labels": "/home/dr/labels.csv"})
    printed = output_of(
        export,
        *("--checkpoints", checkpoints[0], "--calibration", calibration, "--no-scores"),
        *("--image_dir", phantom / "images", "--test_csv", phantom / "test.csv"),
    )
    found = re.search(r"at most (\S+) on 8 images of noise; (\S+) on 16 images of X-rays", printed)
    assert found is not None
    assert max(float(found[1]), float(found[2])) <= 1e-5
    path = tmp_path / "out" / "model.onnx"
    session = onnxruntime.InferenceSession(path)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["class_names"]) == names
    assert facts["calibrated"] == "true"
    assert json.loads(facts["thresholds"]) == {
        name: [0.3, 0.6, None][place % 3] for place, name in enumerate(names)
    }
    assert session.get_inputs()[0].type == "tensor(uint8)"
    images = sorted((phantom / "images").iterdir())[:5]
    plain = reference_probabilities(checkpoints[0], images)
    logits = np.log(plain / (1 - plain))
    slopes, offsets = np.resize([1 / 1.7, 0.8, 1], len(names)), np.resize([0, -0.4, 0], len(names))
    expected = 1 / (1 + np.exp(-(slopes * logits + offsets)))
    pixels = np.stack([load_image(image, info.image_size) for image in images])[:, None]
    for count in (1, 2, 5):
        (probabilities,) = session.run(None, {"images": pixels[:count]})
        np.testing.assert_allclose(probabilities, expected[:count], atol=1e-5)
    text = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    whole = path.read_bytes() + text.encode()
    for private in (b"site-packages", bytes(Path(__file__).parents[3]), bytes(phantom)):
        assert private not in whole
    assert not onnx.load(path).graph.node[0].doc_string


def save_graph(path: Path, node: onnx.NodeProto, shape: list[str | int | None]) -> None:
    """A graph of one node, from uint8 images of this shape."""
    types = onnx.TensorProto
    images = onnx.helper.make_tensor_value_info("images", types.UINT8, shape)
    probabilities = onnx.helper.make_tensor_value_info("probabilities", types.FLOAT, None)
    graph = onnx.helper.make_graph([node], "g", [images], [probabilities])
    opsets = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def test_the_bound_is_on_the_largest_difference(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Cast", ["images"], ["probabilities"], to=onnx.TensorProto.FLOAT)
    save_graph(tmp_path / "m.onnx", node, ["b", 1, 1, 2])
    batch = np.array([[[[0, 1]]]], dtype=np.uint8)

    def difference(off: float) -> float:
        def predict(pixels: np.ndarray) -> np.ndarray:
            return pixels + np.array([0, off])

        return largest_difference(tmp_path / "m.onnx", predict, [batch], integers=True)

    for off in (0.0, 9e-5):
        assert difference(off) == pytest.approx(off, abs=1e-9)
    for off in (1.1e-4, np.nan):
        with pytest.raises(UserError, match=r"differs from PyTorch.*leave out --calibration"):
            difference(off)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--checkpoints {one} {tmp}/larger.safetensors", "image sizes of 32, 64 pix"),
        ("--ensemble_mode rank_mean", "rank_mean ranks an image among many"),
        ("--checkpoints {tmp}/run/{one.name}", "without scores by --no-scores"),
        ("--format folder --input float", "--input float needs --format onnx"),
        ("--format folder --any_size", "--any_size needs --format onnx"),
        ("--output {one.parent} --overwrite", "has other files ("),
        ("--checkpoints {tmp}/older/{one.name}", "gone/train.csv, the labels of"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(
    export: Call, checkpoints: list[Path], tmp_path: Path, arguments: str, sentence: str
) -> None:
    one, run = checkpoints[0], checkpoints[0].parent
    tensors, facts = load_tensors(one)
    facts.pop("format_version")
    save_tensors(tmp_path / "larger.safetensors", tensors, facts | {"img_size": 64})
    for name, ours in (("run", "*fold1_val.csv"), ("older", "labels.csv")):
        shutil.copytree(run, tmp_path / name, ignore=shutil.ignore_patterns(ours, "tensorboard"))
    # of a run before labels.csv
    settings = tmp_path / "older" / "config.json"
    content = json.loads(settings.read_text()) | {"train_csv": ["gone/train.csv"]}
    settings.write_text(json.dumps(content))
    assert sentence in refusal(
        export, "--checkpoints", one, *arguments.format(tmp=tmp_path, one=one).split()
    )
    assert not (tmp_path / "out").exists()
    assert load_facts(one)["img_size"] == 32


def test_a_missing_extra_is_reported_with_its_command(
    export: Call, checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert 'pip install -c constraints.txt -e ".[export]"' in refusal(
        export, "--checkpoints", checkpoints[0]
    )


def test_an_isotonic_map_is_described_and_not_applied() -> None:
    isotonic = Isotonic([0.1, 0.2], [0.0, 1.0], threshold=0.5, threshold_gated=0.5)
    calibration = Calibration({"a": MAPS["platt"], "b": isotonic}, None, 0)
    for names, calibrated in ((["a", "b"], False), (["a"], True)):
        ensemble = Ensemble(toy_members(), np.array([0.5, 0.5]), names)
        export = Export(config=Config(), ensemble=ensemble, calibration=calibration, scores=[])
        assert export.calibrated == calibrated


def test_names_cannot_act_in_a_card() -> None:
    assert escaped("a|b") == r"a\|b"
    assert escaped("<script>&[x](y)") == r"&lt;script>&amp;\[x\](y)"
    assert escaped("Pleural_Thickening") == "Pleural_Thickening"
