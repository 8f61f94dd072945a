"""`ensemble.infer`: merging of views, models and classes, calibration and gating."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import rankdata

from core.data.phantom.dataset import NORMAL
from core.models.checkpoint import load_tensors, save_tensors
from ensemble.predict.calibration import Calibration, Identity, Platt, write_calibration
from ensemble.predict.ensemble_json import write_recipe
from methods import load_model
from tests.helpers.calls import output_of, refusal
from tests.helpers.infer_files import (
    Infer,
    predict_to_frame,
    reference_probabilities,
    select_classes,
    write,
)


@pytest.fixture
def names(checkpoints: list[Path]) -> list[str]:
    return list(load_model(checkpoints[0])[1].class_names)


@pytest.fixture
def both(checkpoints: list[Path], six_images: list[Path], names: list[str]) -> list[pd.DataFrame]:
    """Probabilities of the six images by each of the two models alone."""
    return [
        pd.DataFrame(
            reference_probabilities(path, six_images, mirror=False).astype(float), columns=names
        )
        for path in checkpoints
    ]


def test_resume_states_are_left_out_by_name(
    infer: Infer, checkpoints: list[Path], six_images: list[Path], tmp_path: Path
) -> None:
    """As `RUN/*.safetensors` names them."""
    states = [path.with_suffix(".state.safetensors") for path in checkpoints]
    every = [checkpoints[0], states[0], checkpoints[1], states[1]]
    assert all(path.is_file() for path in every)
    tables = []
    for number, flags in enumerate(
        (
            [*checkpoints, "--weights", 1, 3],
            [*every, "--weights", 1, 3],
            [*every, "--weights", 1, 9, 3, 9],
        )
    ):
        output = tmp_path / f"{number}.csv"
        printed = output_of(infer, six_images[0], "--checkpoints", *flags, "--output", output)
        line = f"left out     {states[0]}, {states[1]}: resume states, not checkpoints"
        assert (line in printed.splitlines()) == (number > 0)
        tables.append(output.read_bytes())
    assert tables[1:] == tables[:1] * 2
    error = refusal(infer, six_images[0], "--checkpoints", states[0])
    assert f"{states[0]}: a resume state, not a checkpoint; give" in error


def test_classes_that_no_model_learnt_and_those_without_a_map_are_named(
    infer: Infer, checkpoints: list[Path], six_images: list[Path], names: list[str], tmp_path: Path
) -> None:
    maps = Calibration(dict.fromkeys(names, Identity()), None, 0, [names[0], names[2]])
    write_calibration(tmp_path / "c.json", maps, {})
    flags: list[object] = [six_images[0], "--calibration", tmp_path / "c.json", "--checkpoints"]
    for first in (None, "earlier.safetensors"):
        # names[0] in no training, names[1] in the second one alone
        for number, path in enumerate(checkpoints):
            tensors, facts = load_tensors(path)
            facts["training_positives"] = dict.fromkeys(names, 3) | {names[0]: 0, names[1]: number}
            facts["settings"]["init_from"] = first
            save_tensors(tmp_path / f"{number}.safetensors", tensors, facts)
        printed = output_of(infer, *flags, *sorted(tmp_path.glob("?.safetensors")))
        warning = f"Warning: {names[0]} had no positive label in training, so its predictions mean "
        assert (warning in printed) == (first is None)
        assert printed.count("had no positive label") == (first is None)
        rare = names[2:3] if first is None else [names[0], names[2]]
        assert f"too few positive or negative patients: {', '.join(rare)}." in printed


def test_one_checkpoint_gives_its_own_validation_predictions(
    infer: Infer, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    own = pd.read_csv(checkpoints[0].with_name(f"{checkpoints[0].stem}_val.csv"), index_col=0)
    csv = write(tmp_path / "names.csv", own.reset_index()[["ImageID"]])
    found = predict_to_frame(
        *(infer, "--checkpoints", checkpoints[0], "--test_csv", csv),
        *("--image_dir", phantom / "images", "--batch_size", 5),
        output=tmp_path / "p.csv",
    )
    assert list(found.index) == list(own.index)
    assert np.abs(found[own.columns].to_numpy() - own.to_numpy()).max() < 1e-5


def test_ranks_are_those_among_all_images(
    infer: Infer, six_flags: list, both: list[pd.DataFrame], tmp_path: Path
) -> None:
    more = ["--weights", 1, 3, "--ensemble_mode", "rank_mean", "--batch_size", 1]
    found = predict_to_frame(infer, *six_flags, *more, output=tmp_path / "p.csv")
    one, two = (rankdata(each, axis=0) for each in both)
    np.testing.assert_allclose(found, (one + 3 * two) / 4 / 6, atol=3e-6)


def test_checkpoints_with_other_classes(
    infer: Infer,
    six_flags: list,
    checkpoints: list[Path],
    both: list[pd.DataFrame],
    names: list[str],
    tmp_path: Path,
) -> None:
    few = select_classes(checkpoints[1], tmp_path / "few.safetensors", names[4:0:-1])
    pair = ["--checkpoints", checkpoints[0], few]
    out = tmp_path / "p.csv"
    error = refusal(infer, *six_flags, *pair, "--output", out)
    missing = ", ".join(sorted({*names} - {*names[1:5]})[:12])
    assert f"do not have the same classes: {missing}" in error
    assert "--classes union or --classes intersection" in error
    more = ["--classes", "union", "--weights", 1, 3]
    union = predict_to_frame(infer, *six_flags, *pair, *more, output=out)
    assert list(union) == names
    expected, shared = both[0].copy(), names[1:5]
    expected[shared] = (both[0][shared] + 3 * both[1][shared]) / 4
    np.testing.assert_allclose(union, expected, atol=2e-6)
    more[1] = "intersection"
    found = predict_to_frame(infer, *six_flags, *pair, *more, output=out)
    pd.testing.assert_frame_equal(found, union[shared])
    # a model without weight takes no part
    more = ["--checkpoints", few, checkpoints[0], "--classes", "union", "--weights", 1, 0]
    assert list(predict_to_frame(infer, *six_flags, *more, output=out)) == names[4:0:-1]


def test_models_of_other_sizes_see_each_image_at_theirs(
    infer: Infer, six_flags: list, checkpoints: list[Path], six_images: list[Path], tmp_path: Path
) -> None:
    tensors, facts = load_tensors(checkpoints[1])
    pair = [checkpoints[0], tmp_path / "other.safetensors"]
    save_tensors(pair[1], tensors, facts | {"img_size": 48})
    found = predict_to_frame(infer, *six_flags, "--checkpoints", *pair, output=tmp_path / "p.csv")
    one, other = (reference_probabilities(path, six_images, mirror=False) for path in pair)
    np.testing.assert_allclose(found, (one + other) / 2, atol=2e-6)


def gated(frame: pd.DataFrame, normal: str, alpha: float) -> pd.DataFrame:
    return frame.mul((1 - frame[normal]) ** alpha, axis=0).assign(**{normal: frame[normal]})


def test_calibration_and_gating(
    infer: Infer, six_flags: list, names: list[str], tmp_path: Path
) -> None:
    plain = predict_to_frame(infer, *six_flags, output=tmp_path / "p.csv")
    calibration = tmp_path / "c.json"
    maps = dict.fromkeys(names, Identity())
    maps[names[1]] = Platt(2.0, -1.0, threshold=0.5, threshold_gated=0.5)
    write_calibration(calibration, Calibration(maps, names[3], 0.25), {})
    calibrated = plain.assign(**{names[1]: expit(2 * logit(plain[names[1]]) - 1)})
    gate: list[object] = ["--postprocess", "normal_gating"]
    named, file = [*gate, "--normal_class", names[3]], ["--calibration", calibration]
    for more, expected in (
        (gate, gated(plain, NORMAL, 0.5)),
        (named, gated(plain, names[3], 0.5)),
        ([*named, "--normal_alpha", 0], plain),
        (file, calibrated),
        # gating takes the file's normal class and alpha
        ([*file, *gate], gated(calibrated, names[3], 0.25)),
    ):
        found = predict_to_frame(infer, *six_flags, *more, output=tmp_path / "p.csv")
        np.testing.assert_allclose(found, expected, atol=1e-6)
    del maps[names[0]]
    write_calibration(calibration, Calibration(maps, names[3], 0.25), {})
    assert names[0] in refusal(infer, *six_flags, *file, "--output", tmp_path / "e.csv")


def test_an_ensemble_file_names_models_weights_and_classes(
    infer: Infer,
    six_flags: list,
    checkpoints: list[Path],
    both: list[pd.DataFrame],
    names: list[str],
    tmp_path: Path,
) -> None:
    recipe, chosen = tmp_path / "ensemble.json", names[5:2:-1]
    members = [("one", 0.25, [checkpoints[0]]), ("two", 0.75, [checkpoints[1]])]
    write_recipe(recipe, members, chosen, {})
    found = predict_to_frame(infer, *six_flags[3:], "--ensemble", recipe, output=tmp_path / "p.csv")
    assert list(found) == chosen
    np.testing.assert_allclose(found, (both[0] + 3 * both[1])[chosen] / 4, atol=2e-6)
    write_recipe(recipe, members, [*names, "Unheard"], {})
    assert "Unheard" in refusal(
        infer, *six_flags[3:], "--ensemble", recipe, "--output", tmp_path / "q.csv"
    )
