"""`ensemble.infer`: which rows and columns it writes, and what becomes of the probabilities."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from one_by_one import said
from scipy.special import expit, logit
from scipy.stats import rankdata
from small_run import MODEL, flags

from core.checkpoint import load_tensors, save_tensors
from core.data.phantom import NORMAL
from ensemble.recipe import Member, write_recipe
from methods import load_model

Infer = Callable[..., tuple[int, str, str]]
HEAD = ("head.6.weight", "head.6.bias")


def write(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def images(phantom: Path) -> list[Path]:
    """Six of the phantom's images."""
    return sorted((phantom / "images").iterdir())[:6]


@pytest.fixture
def base(checkpoints: list[Path], phantom: Path, images: list[Path], tmp_path: Path) -> list:
    """Two checkpoints and six images, without views."""
    names = pd.DataFrame({"ImageID": [path.name for path in images]})
    return [
        *("--checkpoints", *checkpoints, "--image_dir", phantom / "images", "--no-use_tta"),
        *("--test_csv", write(tmp_path / "six.csv", names)),
    ]


def predicted(infer: Infer, *arguments: object, output: Path) -> pd.DataFrame:
    code, _, error = infer(*arguments, "--output", output, "--overwrite")
    assert code == 0, error
    return pd.read_csv(output, index_col=0)


def part(checkpoint: Path, path: Path, keep: list[str]) -> Path:
    """A checkpoint that knows some of the classes only, in the order of `keep`."""
    tensors, facts = load_tensors(checkpoint)
    places = [facts["class_names"].index(name) for name in keep]
    tensors |= {name: tensors[name][places] for name in HEAD}
    save_tensors(path, tensors, facts | {"class_names": keep})
    return path


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
    base: list,
    checkpoints: list[Path],
    images: list[Path],
    tmp_path: Path,
    mode: str,
    merged: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> None:
    more = ["--weights", 1, 3, "--ensemble_mode", mode]
    found = predicted(infer, *base, *more, output=tmp_path / "p.csv")
    one, two = (said(path, images, mirror=False).astype(float) for path in checkpoints)
    np.testing.assert_allclose(found.to_numpy(), merged(one, two), atol=3e-6)


def test_checkpoints_with_other_classes(
    infer: Infer, base: list, checkpoints: list[Path], images: list[Path], tmp_path: Path
) -> None:
    names = list(load_model(checkpoints[0])[1].class_names)
    few = part(checkpoints[1], tmp_path / "few.safetensors", names[4:0:-1])
    pair = ["--checkpoints", checkpoints[0], few]
    code, _, error = infer(*base, *pair, "--output", tmp_path / "p.csv")
    assert code == 2
    assert "--classes union or --classes intersection" in error
    one, two = (
        pd.DataFrame(said(path, images, mirror=False), columns=names) for path in checkpoints
    )
    more = ["--classes", "union", "--weights", 1, 3]
    union = predicted(infer, *base, *pair, *more, output=tmp_path / "p.csv")
    assert list(union) == names
    expected = one.copy()
    expected[names[1:5]] = (one[names[1:5]] + 3 * two[names[1:5]]) / 4
    np.testing.assert_allclose(union.to_numpy(), expected.to_numpy(), atol=2e-6)
    more[1] = "intersection"
    shared = predicted(infer, *base, *pair, *more, output=tmp_path / "p.csv")
    assert list(shared) == names[1:5]
    pd.testing.assert_frame_equal(shared, union[names[1:5]])
    _, printed, _ = infer(*base, *pair, *more, "--output", tmp_path / "p.csv", "--overwrite")
    assert "The models differ in fold, classes." in printed


def test_models_of_other_sizes_see_each_image_at_theirs(
    infer: Infer, base: list, checkpoints: list[Path], images: list[Path], tmp_path: Path
) -> None:
    tensors, facts = load_tensors(checkpoints[1])
    other = tmp_path / "other.safetensors"
    save_tensors(other, tensors, facts | {"img_size": 48})
    pair = ["--checkpoints", checkpoints[0], other]
    found = predicted(infer, *base, *pair, output=tmp_path / "p.csv")
    expected = (said(checkpoints[0], images, mirror=False) + said(other, images, mirror=False)) / 2
    np.testing.assert_allclose(found.to_numpy(), expected, atol=2e-6)


def test_studies_are_merged_by_their_views(
    infer: Infer, base: list, images: list[Path], tmp_path: Path
) -> None:
    alone = predicted(infer, *base, output=tmp_path / "p.csv").to_numpy()
    frame = pd.DataFrame(
        {
            "ImageID": [path.name for path in images],
            "exam": ["s2", "s1", "s2", "s2", "s3", "s1"],
            "ViewPosition": ["PA", "AP", "LATERAL", "AP", "", "LL"],
        }
    )
    grouped = ["--test_csv", write(tmp_path / "views.csv", frame), "--group_by", "exam"]
    found = predicted(infer, *base, *grouped, output=tmp_path / "s.csv")
    assert found.index.name == "exam"
    assert list(found.index) == ["s2", "s1", "s3"]
    s2 = ((alone[0] + alone[3]) / 2 + alone[2]) / 2
    expected = np.array([s2, (alone[1] + alone[5]) / 2, alone[4]])
    np.testing.assert_allclose(found.to_numpy(), expected, atol=1e-6)

    sample = pd.DataFrame({"StudyId": ["s3", "s2"], found.columns[2]: 0, found.columns[0]: 0.5})
    more = ["--sample_submission", write(tmp_path / "sample.csv", sample)]
    picked = predicted(infer, *base, *grouped, *more, output=tmp_path / "s.csv")
    assert picked.index.name == "StudyId"
    assert list(picked) == list(sample)[1:]
    rows = found[list(picked)].loc[["s3", "s2"]]
    np.testing.assert_allclose(picked.to_numpy(), rows.to_numpy(), atol=1e-6)


def test_a_sample_submission_says_which_rows_and_columns(
    infer: Infer, base: list, images: list[Path], tmp_path: Path
) -> None:
    every = predicted(infer, *base, output=tmp_path / "p.csv")
    columns = list(map(str, every))[::-2]
    rows = [images[place].name for place in (4, 1, 2)]
    sample = pd.DataFrame({"id": rows} | dict.fromkeys(columns, 0.5))
    more = ["--sample_submission", write(tmp_path / "sample.csv", sample)]
    for arguments in (base, [word for word in base if word not in base[-2:]]):
        found = predicted(infer, *arguments, *more, output=tmp_path / "s.csv")
        assert found.index.name == "id"
        expected = every[columns].loc[rows]
        assert list(found.index) == rows
        assert list(found) == columns
        np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), atol=1e-6)

    for frame, told in (
        (sample.assign(id=["x.png", *rows[1:]]), "1 of 3 rows of"),
        (sample.assign(Unheard=0), "1 column(s) of"),
        (sample[["id"]], "a named one for each class"),
    ):
        wrong = ["--sample_submission", write(tmp_path / "wrong.csv", frame)]
        code, _, error = infer(*base, *wrong, "--output", tmp_path / "w.csv")
        assert code == 2
        assert told in error
        assert not (tmp_path / "w.csv").exists()


def test_calibration_and_gating(infer: Infer, base: list, tmp_path: Path) -> None:
    plain = predicted(infer, *base, output=tmp_path / "p.csv")
    names = list(map(str, plain))
    gate: list[object] = ["--postprocess", "normal_gating", "--normal_class", "Unheard"]
    code, _, error = infer(*base, *gate, "--output", tmp_path / "n.csv")
    assert code == 2
    assert "there is no class 'Unheard'" in error
    found = predicted(infer, *base, *gate[:2], output=tmp_path / "g.csv")
    expected = plain.mul(np.sqrt(1 - plain[NORMAL]), axis=0)
    expected[NORMAL] = plain[NORMAL]
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), atol=1e-6)
    gate[3] = names[3]
    gated = predicted(infer, *base, *gate, output=tmp_path / "g.csv")
    expected = plain.mul(np.sqrt(1 - plain[names[3]]), axis=0).assign(**{names[3]: plain[names[3]]})
    np.testing.assert_allclose(gated.to_numpy(), expected.to_numpy(), atol=1e-6)
    zero = predicted(infer, *base, *gate, "--normal_alpha", 0, output=tmp_path / "z.csv")
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
    calibrated = predicted(infer, *base, *more, output=tmp_path / "c.csv")
    expected = plain.assign(**{names[1]: expit(2 * logit(plain[names[1]]) - 1)})
    np.testing.assert_allclose(calibrated.to_numpy(), expected.to_numpy(), atol=1e-6)
    # gating takes the file's normal class and alpha
    more += ["--postprocess", "normal_gating"]
    both = predicted(infer, *base, *more, output=tmp_path / "b.csv")
    factor = (1 - expected[names[3]]) ** 0.25
    expected = expected.mul(factor, axis=0).assign(**{names[3]: expected[names[3]]})
    np.testing.assert_allclose(both.to_numpy(), expected.to_numpy(), atol=1e-6)

    del classes[names[0]]
    (tmp_path / "c.json").write_text(json.dumps(document))
    code, _, error = infer(*base, *more, "--output", tmp_path / "e.csv")
    assert code == 2
    assert names[0] in error


def test_a_single_image_prints_a_table(
    infer: Infer, checkpoints: list[Path], images: list[Path], tmp_path: Path
) -> None:
    names = load_model(checkpoints[0])[1].class_names
    expected = pd.Series(said(checkpoints[0], images[2:3])[0], index=names)
    for words in (["--image_dir", images[2]], [images[2]]):
        code, printed, error = infer(*words, "--checkpoints", checkpoints[0])
        assert code == 0, error
        lines = [line.split() for line in printed.splitlines() if line.startswith("  ")][
            -len(names) :
        ]
        shown = pd.Series({name: float(number) for number, name in lines})
        assert list(shown.index) == list(expected.sort_values(ascending=False).index)
        np.testing.assert_allclose(shown, expected[shown.index], atol=6e-5)
    found = predicted(infer, images[2], "--checkpoints", checkpoints[0], output=tmp_path / "1.csv")
    np.testing.assert_allclose(found.loc[images[2].name, list(names)], expected, atol=1e-6)
    (tmp_path / "bad.png").write_bytes(images[0].read_bytes()[:100])
    code, _, error = infer(tmp_path / "bad.png", "--checkpoints", checkpoints[0])
    assert code == 2
    assert "bad.png cannot be read" in error


def test_unreadable_images_are_left_out_and_listed_if_asked_for(
    infer: Infer, base: list, checkpoints: list[Path], images: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in images:
        shutil.copy(path, folder)
    (folder / images[1].name).write_bytes(b"")
    (folder / images[4].name).write_bytes(images[4].read_bytes()[:90])
    out = tmp_path / "p.csv"
    spoiled = [*base, "--image_dir", folder, "--batch_size", 2]
    assert infer(*spoiled, "--output", out)[0] == 2
    assert not out.exists()
    # what the first start predicted is kept
    code, printed, error = infer(*spoiled, "--output", out, "--on_bad_image", "skip")
    assert code == 0, error
    assert "Going on: 1 of 1 blocks are there." in printed
    found = pd.read_csv(out, index_col=0)
    kept = [images[place] for place in (0, 2, 3, 5)]
    assert list(found.index) == [path.name for path in kept]
    expected = sum(said(path, kept, mirror=False) for path in checkpoints) / 2
    np.testing.assert_allclose(found.to_numpy(), expected, atol=2e-6)
    listed = pd.read_csv(tmp_path / "p_skipped.csv")
    assert list(listed["ImageID"]) == [images[1].name, images[4].name]
    assert listed["reason"].str.contains("cannot be read").all()
    # mended, there is nothing left to list
    for place in (1, 4):
        shutil.copy(images[place], folder)
    again = [*spoiled, "--output", out, "--overwrite"]
    assert infer(*again, "--on_bad_image", "skip")[0] == 0
    assert sorted(path.name for path in tmp_path.glob("p*")) == ["p.csv"]
    # a list of somebody else's stays
    (tmp_path / "p_skipped.csv").write_text("mine")
    code, _, error = infer(*again, "--on_bad_image", "skip")
    assert code == 2
    assert "p_skipped.csv would be replaced" in error
    assert infer(*again)[0] == 0
    assert (tmp_path / "p_skipped.csv").read_text() == "mine"

    for path in folder.iterdir():
        path.write_bytes(b"")
    code, _, error = infer(*spoiled, "--output", tmp_path / "q.csv", "--on_bad_image", "skip")
    assert code == 2
    assert "6 of 6 images cannot be read" in error
    assert "--on_bad_image" not in error


def test_a_study_whose_images_are_skipped_is_listed(
    infer: Infer, base: list, images: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for path in images:
        shutil.copy(path, folder)
    (folder / images[1].name).write_bytes(b"")
    names = [path.name for path in images[:3]]
    csv = write(tmp_path / "s.csv", pd.DataFrame({"ImageID": names, "exam": ["a", "b", "a"]}))
    out = tmp_path / "p.csv"
    more = ["--image_dir", folder, "--test_csv", csv, "--group_by", "exam", "--output", out]
    code, printed, error = infer(*base, *more, "--on_bad_image", "skip")
    assert code == 0, error
    assert "1 studies of 2 images" in printed
    assert list(pd.read_csv(out)["exam"]) == ["a"]
    listed = pd.read_csv(tmp_path / "p_skipped.csv")
    assert listed[["ImageID", "StudyID"]].to_numpy().tolist() == [[images[1].name, "b"]]


def test_a_model_without_weight_takes_no_part(
    infer: Infer, base: list, checkpoints: list[Path], tmp_path: Path
) -> None:
    names = list(load_model(checkpoints[0])[1].class_names)
    few = part(checkpoints[1], tmp_path / "few.safetensors", names[4:0:-1])
    pair = ["--checkpoints", few, checkpoints[0], "--classes", "union"]
    found = predicted(infer, *base, *pair, "--weights", 1, 0, output=tmp_path / "p.csv")
    assert list(found) == names[4:0:-1]
    assert not found.isna().any(axis=None)


def test_an_ensemble_file_names_models_weights_and_classes(
    infer: Infer, base: list, checkpoints: list[Path], images: list[Path], tmp_path: Path
) -> None:
    names = list(load_model(checkpoints[0])[1].class_names)
    recipe = tmp_path / "ensemble.json"
    members = [Member("one", 0.25, (checkpoints[0],)), Member("two", 0.75, (checkpoints[1],))]
    write_recipe(recipe, members, names[5:2:-1], {})
    found = predicted(infer, *base[3:], "--ensemble", recipe, output=tmp_path / "p.csv")
    assert list(found) == names[5:2:-1]
    one, two = (
        pd.DataFrame(said(path, images, mirror=False), columns=names) for path in checkpoints
    )
    expected = (one + 3 * two)[names[5:2:-1]] / 4
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), atol=2e-6)
    write_recipe(recipe, members, [*names, "Unheard"], {})
    code, _, error = infer(*base[3:], "--ensemble", recipe, "--output", tmp_path / "q.csv")
    assert code == 2
    assert "Unheard" in error
