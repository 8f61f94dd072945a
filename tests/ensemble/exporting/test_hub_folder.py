"""`python -m ensemble.export --format folder`: content and model card."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score

from core.errors import UserError
from core.models.checkpoint import _checksum, load_facts, load_tensors, save_tensors
from ensemble.infer import main as infer_main
from ensemble.predict.calibration import (
    Calibration,
    Identity,
    read_calibration,
    write_calibration,
)
from ensemble.predict.ensemble_json import write_recipe
from methods import load_model
from tests.conftest import Call
from tests.helpers.calls import output_of
from tests.helpers.infer_files import reference_probabilities


def test_a_folder_loads_back_to_the_same_bits_without_paths(
    export: Call, checkpoints: list[Path], finished: tuple[Path, str], phantom: Path, tmp_path: Path
) -> None:
    output_of(export, "--checkpoints", checkpoints[0], "--format", "folder")
    folder = tmp_path / "out"
    written = {path.name for path in folder.iterdir()}
    assert written == {"README.md", "config.json", "model.safetensors"}
    (model, info), (given, before) = load_model(folder), load_model(checkpoints[0])
    images = torch.randint(0, 256, (3, 1, info.image_size, info.image_size), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(model(images), given(images))
    assert info.class_names == before.class_names
    assert info.facts["settings"]["train_csv"] == ["train.csv"]
    assert info.facts["settings"]["epochs"] == before.facts["settings"]["epochs"]
    whole = b"".join(path.read_bytes() for path in folder.iterdir())
    for private in (bytes(phantom), bytes(finished[0]), b"p00000"):
        assert private not in whole
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: longtail-cxr\n")
    held = pd.read_csv(checkpoints[0].with_name(f"{checkpoints[0].stem}_val.csv"), index_col=0)
    labels = pd.read_csv(phantom / "train.csv", index_col="ImageID").loc[held.index]
    counts = before.facts["training_positives"]
    for name in info.class_names:
        positives = int(labels[name].sum())
        row = re.search(
            rf"^\| {name} \| {counts[name]} \| \d+ \| (\S+) .*\| {positives} \|$", card, re.M
        )
        assert row is not None, name
        if 0 < positives < len(labels):
            expected = average_precision_score(labels[name], held[name])
            assert float(row[1]) == pytest.approx(expected, abs=6e-4)


def test_several_checkpoints_are_a_folder_that_infer_takes(
    export: Call, call: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    output_of(
        export,
        *("--checkpoints", *checkpoints, "--weights", 1, 3, "--format", "folder", "--no-scores"),
    )
    card = (tmp_path / "out" / "README.md").read_text()
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files == ["model_1.safetensors", "model_2.safetensors"]
    # among the models, and among their scores
    assert re.findall(r"^\| (\S*[12]\S*) \|", card, re.M) == 2 * files
    with pytest.raises(UserError, match=r"infer --ensemble \S+ensemble.json`.* model_1.safetens"):
        load_model(tmp_path / "out")
    csv = tmp_path / "t.csv"
    pd.read_csv(phantom / "test.csv")[:4].to_csv(csv, index=False)
    shared = ("--image_dir", phantom / "images", "--test_csv", csv, "--num_workers", 0)
    ways: tuple[tuple[object, ...], ...] = (
        ("--ensemble", tmp_path / "out" / "ensemble.json"),
        ("--checkpoints", *checkpoints, "--weights", 1, 3),
    )
    for number, way in enumerate(ways):
        output_of(call, infer_main, *way, *shared, "--output", tmp_path / f"{number}.csv")
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()


def test_a_folder_lists_the_classes_of_each_model(
    export: Call, call: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    names = load_model(checkpoints[0])[1].class_names
    fewer = list(names[4::-1])
    write_recipe(tmp_path / "e.json", [("a", 1, [checkpoints[0]])], fewer, {})
    output_of(export, "--ensemble", tmp_path / "e.json", "--format", "folder", "--no-scores")
    folder = tmp_path / "out"
    document = json.loads((folder / "config.json").read_text())
    assert document["class_names"] == fewer
    (model,) = document["models"]
    assert tuple(model["class_names"]) == load_model(folder / model["file"])[1].class_names == names
    assert "--ensemble ensemble.json" in (folder / "README.md").read_text()
    image = sorted((phantom / "images").iterdir())[0]
    output_of(
        call,
        *(infer_main, image, "--ensemble", folder / "ensemble.json"),
        *("--output", tmp_path / "p.csv", "--tta_config", "none"),
    )
    expected = reference_probabilities(checkpoints[0], [image], mirror=False)[0, 4::-1]
    found = pd.read_csv(tmp_path / "p.csv", index_col=0)
    assert list(found.columns) == fewer
    np.testing.assert_allclose(found.iloc[0], expected, atol=1e-6)


def test_the_card_names_classes_never_learnt_and_those_without_a_map(
    export: Call, checkpoints: list[Path], tmp_path: Path
) -> None:
    tensors, facts = load_tensors(checkpoints[0])
    names = facts["class_names"]
    facts["training_positives"] = dict.fromkeys(names, 3) | {names[0]: 0}
    tensors["backbone.mean"].fill_(0.25)
    tensors["backbone.std"].fill_(0.125)
    save_tensors(tmp_path / "m.safetensors", tensors, facts)
    maps = Calibration(dict.fromkeys(names, Identity()), None, 0, names[1:3])
    write_calibration(tmp_path / "c.json", maps, {})
    flags = ("--checkpoints", tmp_path / "m.safetensors", "--calibration", tmp_path / "c.json")
    assert f"Warning: {names[0]} had no" in output_of(export, *flags, "--format", "folder")
    card = (tmp_path / "out" / "README.md").read_text().replace("\\", "")
    assert f"training, so that their predictions mean nothing: {names[0]}.\n" in card
    assert "scaled by mean 0.25 and standard deviation 0.125\n" in card
    assert f"because they are too rare: {names[1]}, {names[2]}.\n" in card
    assert read_calibration(tmp_path / "out" / "calibration.json").too_rare == names[1:3]


def test_facts_of_an_untrusted_checkpoint_are_shown_only_where_valid(
    export: Call, checkpoints: list[Path], tmp_path: Path
) -> None:
    tensors, facts = load_tensors(checkpoints[0])
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    facts["fold"], facts["epoch"] = 10**400, 10**400
    facts["metrics"] = {"mAP": 10**400, "mAUROC": 0.7, "ECE": 1e300}
    facts["versions"] = {"torch": "\ud800", "\udfff": deep}
    # what our writer refuses
    facts["training_known"] = dict.fromkeys(facts["class_names"], "INFINITE")
    path = tmp_path / "hostile.safetensors"
    save_tensors(path, tensors, facts)
    data = path.read_bytes()
    assert data.count(b'\\"INFINITE\\"') == len(facts["class_names"])
    facts_text = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][
        "facts"
    ]
    wild = facts_text.replace('"INFINITE"', "1e999")
    save_file(tensors, path, {"facts": wild, "sha256": _checksum(tensors, wild)})
    printed = output_of(export, "--checkpoints", path, "--format", "folder")
    assert len(printed) < 1000
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| unknown | unknown |\n" in card
    assert "| unknown | unknown | unknown | 0.700 | unknown |" in card
    assert "? unknown, torch ?" in card
    written = load_facts(tmp_path / "out" / "model.safetensors")
    assert (written["fold"], written["epoch"]) == (None, None)
    assert written["settings"]["epochs"] == facts["settings"]["epochs"]


def test_what_was_exported_can_be_exported_again(
    export: Call, checkpoints: list[Path], tmp_path: Path
) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    one = ("--format", "folder", "--checkpoints")
    assert export(*one, checkpoints[0], "--no-scores", "--output", first)[0] == 0
    output_of(export, *one, first / "model.safetensors", "--output", again)
    assert (again / "config.json").read_bytes() == (first / "config.json").read_bytes()
    assert load_facts(again / "model.safetensors") == load_facts(first / "model.safetensors")


def test_a_folder_without_a_model_is_reported_with_its_content(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"name one of its files: \S+_fold1.safetensors, \S+2.s\w+$"
    ):
        load_model(finished[0])
    with pytest.raises(UserError, match="has no checkpoint"):
        load_model(tmp_path)
