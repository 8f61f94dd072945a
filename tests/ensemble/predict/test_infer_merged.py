"""`ensemble.infer`: what becomes of the probabilities of views, models and classes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import rankdata

from core.data.phantom.dataset import NORMAL
from core.models.checkpoint import load_tensors, save_tensors
from ensemble.predict.ensemble_json import Member, write_recipe
from methods import load_model
from tests.helpers.infer_files import Infer, part, predicted, write
from tests.helpers.reference_predictions import said
from tests.helpers.training.small_run import MODEL, flags


def test_one_checkpoint_gives_its_own_validation_predictions(
    train: Infer, infer: Infer, phantom: Path, tmp_path: Path
) -> None:
    """With no views, those of a training without; with both, those of a training with its two."""
    for tta, views in (("--no-tta", "none"), ("--tta", "flip")):
        out = tmp_path / views
        code, _, error = train(*flags(phantom, out, "--run_folds", 1, tta))
        assert code == 0, error
        own = pd.read_csv(out / f"{MODEL}_fold1_val.csv", index_col=0)
        names = write(tmp_path / "names.csv", own.reset_index()[["ImageID"]])
        found = predicted(
            *(infer, "--checkpoints", out / f"{MODEL}_fold1.safetensors", "--test_csv", names),
            *("--image_dir", phantom / "images", "--tta_config", views, "--batch_size", 5),
            output=tmp_path / "p.csv",
        )
        assert list(found.index) == list(own.index)
        assert np.abs(found[own.columns].to_numpy() - own.to_numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("mode", "merged"),
    [
        ("logit_mean", lambda one, two: expit((logit(one) + 3 * logit(two)) / 4)),
        ("gmean", lambda one, two: (one * two**3) ** 0.25),
        (
            "rank_mean",
            lambda one, two: (rankdata(one, axis=0) + 3 * rankdata(two, axis=0)) / 4 / 6,
        ),
    ],
)
def test_merges_with_weights(
    infer: Infer,
    six_flags: list,
    checkpoints: list[Path],
    six_images: list[Path],
    tmp_path: Path,
    mode: str,
    merged: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> None:
    more = ["--weights", 1, 3, "--ensemble_mode", mode]
    found = predicted(infer, *six_flags, *more, output=tmp_path / "p.csv")
    one, two = (said(path, six_images, mirror=False).astype(float) for path in checkpoints)
    np.testing.assert_allclose(found.to_numpy(), merged(one, two), atol=3e-6)


def test_checkpoints_with_other_classes(
    infer: Infer, six_flags: list, checkpoints: list[Path], six_images: list[Path], tmp_path: Path
) -> None:
    names = list(load_model(checkpoints[0])[1].class_names)
    few = part(checkpoints[1], tmp_path / "few.safetensors", names[4:0:-1])
    pair = ["--checkpoints", checkpoints[0], few]
    code, _, error = infer(*six_flags, *pair, "--output", tmp_path / "p.csv")
    assert code == 2
    assert "--classes union or --classes intersection" in error
    one, two = (
        pd.DataFrame(said(path, six_images, mirror=False), columns=names) for path in checkpoints
    )
    more = ["--classes", "union", "--weights", 1, 3]
    union = predicted(infer, *six_flags, *pair, *more, output=tmp_path / "p.csv")
    assert list(union) == names
    expected = one.copy()
    expected[names[1:5]] = (one[names[1:5]] + 3 * two[names[1:5]]) / 4
    np.testing.assert_allclose(union.to_numpy(), expected.to_numpy(), atol=2e-6)
    more[1] = "intersection"
    shared = predicted(infer, *six_flags, *pair, *more, output=tmp_path / "p.csv")
    assert list(shared) == names[1:5]
    pd.testing.assert_frame_equal(shared, union[names[1:5]])
    _, printed, _ = infer(*six_flags, *pair, *more, "--output", tmp_path / "p.csv", "--overwrite")
    assert "The models differ in fold, classes." in printed


def test_models_of_other_sizes_see_each_image_at_theirs(
    infer: Infer, six_flags: list, checkpoints: list[Path], six_images: list[Path], tmp_path: Path
) -> None:
    tensors, facts = load_tensors(checkpoints[1])
    other = tmp_path / "other.safetensors"
    save_tensors(other, tensors, facts | {"img_size": 48})
    pair = ["--checkpoints", checkpoints[0], other]
    found = predicted(infer, *six_flags, *pair, output=tmp_path / "p.csv")
    expected = (
        said(checkpoints[0], six_images, mirror=False) + said(other, six_images, mirror=False)
    ) / 2
    np.testing.assert_allclose(found.to_numpy(), expected, atol=2e-6)


def test_calibration_and_gating(infer: Infer, six_flags: list, tmp_path: Path) -> None:
    plain = predicted(infer, *six_flags, output=tmp_path / "p.csv")
    names = list(map(str, plain))
    gate: list[object] = ["--postprocess", "normal_gating", "--normal_class", "Unheard"]
    code, _, error = infer(*six_flags, *gate, "--output", tmp_path / "n.csv")
    assert code == 2
    assert "there is no class 'Unheard'" in error
    found = predicted(infer, *six_flags, *gate[:2], output=tmp_path / "g.csv")
    expected = plain.mul(np.sqrt(1 - plain[NORMAL]), axis=0)
    expected[NORMAL] = plain[NORMAL]
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), atol=1e-6)
    gate[3] = names[3]
    gated = predicted(infer, *six_flags, *gate, output=tmp_path / "g.csv")
    expected = plain.mul(np.sqrt(1 - plain[names[3]]), axis=0).assign(**{names[3]: plain[names[3]]})
    np.testing.assert_allclose(gated.to_numpy(), expected.to_numpy(), atol=1e-6)
    zero = predicted(infer, *six_flags, *gate, "--normal_alpha", 0, output=tmp_path / "z.csv")
    pd.testing.assert_frame_equal(zero, plain)

    entry = {"threshold": 0.5, "threshold_gated": 0.5}
    platt = {"method": "platt", "slope": 2.0, "offset": -1.0} | entry
    classes = {name: {"method": "identity"} | entry for name in names} | {names[1]: platt}
    document = {
        "kind": "calibration",
        "format_version": 1,
        "classes": classes,
        "normal_class": names[3],
        "normal_alpha": 0.25,
        "made_from": {},
    }
    (tmp_path / "c.json").write_text(json.dumps(document))
    more = ["--calibration", tmp_path / "c.json"]
    calibrated = predicted(infer, *six_flags, *more, output=tmp_path / "c.csv")
    expected = plain.assign(**{names[1]: expit(2 * logit(plain[names[1]]) - 1)})
    np.testing.assert_allclose(calibrated.to_numpy(), expected.to_numpy(), atol=1e-6)
    # gating takes the file's normal class and alpha
    more += ["--postprocess", "normal_gating"]
    both = predicted(infer, *six_flags, *more, output=tmp_path / "b.csv")
    factor = (1 - expected[names[3]]) ** 0.25
    expected = expected.mul(factor, axis=0).assign(**{names[3]: expected[names[3]]})
    np.testing.assert_allclose(both.to_numpy(), expected.to_numpy(), atol=1e-6)

    del classes[names[0]]
    (tmp_path / "c.json").write_text(json.dumps(document))
    code, _, error = infer(*six_flags, *more, "--output", tmp_path / "e.csv")
    assert code == 2
    assert names[0] in error


def test_a_model_without_weight_takes_no_part(
    infer: Infer, six_flags: list, checkpoints: list[Path], tmp_path: Path
) -> None:
    names = list(load_model(checkpoints[0])[1].class_names)
    few = part(checkpoints[1], tmp_path / "few.safetensors", names[4:0:-1])
    pair = ["--checkpoints", few, checkpoints[0], "--classes", "union"]
    found = predicted(infer, *six_flags, *pair, "--weights", 1, 0, output=tmp_path / "p.csv")
    assert list(found) == names[4:0:-1]
    assert not found.isna().any(axis=None)


def test_an_ensemble_file_names_models_weights_and_classes(
    infer: Infer, six_flags: list, checkpoints: list[Path], six_images: list[Path], tmp_path: Path
) -> None:
    names = list(load_model(checkpoints[0])[1].class_names)
    recipe = tmp_path / "ensemble.json"
    members = [Member("one", 0.25, (checkpoints[0],)), Member("two", 0.75, (checkpoints[1],))]
    write_recipe(recipe, members, names[5:2:-1], {})
    found = predicted(infer, *six_flags[3:], "--ensemble", recipe, output=tmp_path / "p.csv")
    assert list(found) == names[5:2:-1]
    one, two = (
        pd.DataFrame(said(path, six_images, mirror=False), columns=names) for path in checkpoints
    )
    expected = (one + 3 * two)[names[5:2:-1]] / 4
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), atol=2e-6)
    write_recipe(recipe, members, [*names, "Unheard"], {})
    code, _, error = infer(*six_flags[3:], "--ensemble", recipe, "--output", tmp_path / "q.csv")
    assert code == 2
    assert "Unheard" in error
