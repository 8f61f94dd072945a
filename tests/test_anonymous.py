"""`--anonymous`: runs, predictions and scores without names, which can still be scored."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from core.data.tables.anonymous import is_numbered, number_names, restore_names
from core.models.checkpoint import load_facts
from ensemble.choose import main as choose
from ensemble.evaluate import main as evaluate
from tests.conftest import Call, Once, Train
from tests.helpers.training.small_run import MODEL, flags

# files that are not shared: the run resumes by them
AT_HOME = {"config.json", "env.json"}


def texts_of(folder: Path) -> dict[str, str]:
    """Text of each file of a folder; of checkpoints, their metadata."""
    texts = {}
    for path in folder.rglob("*"):
        if path.suffix in (".csv", ".html", ".json", ".txt"):
            texts[path.name] = path.read_text(encoding="utf-8")
        elif path.suffix == ".safetensors":
            texts[path.name] = json.dumps(load_facts(path))
    return texts


def identifiers(data: Path, csv: str = "train.csv") -> list[str]:
    """Forbidden texts: images, folders, and patients with names long enough to search for."""
    table = pd.read_csv(data / csv, dtype=str)
    return [*table["ImageID"], *(name for name in table["PatientID"] if len(name) > 3), str(data)]


@pytest.fixture
def anonymous(phantom: Path, train: Train, once: Once) -> Path:
    """A finished run without names."""

    def make(folder: Path) -> None:
        assert train(*flags(phantom, folder / "out", "--anonymous"))[0] == 0

    return once("anonymous", make) / "out"


def test_a_run_without_names_is_that_with_names(
    phantom: Path, finished: tuple[Path, str], anonymous: Path
) -> None:
    out, usual = anonymous, finished[0]
    texts = texts_of(out)
    assert len(texts) >= 10
    for name in set(texts) - AT_HOME:
        for identifier in identifiers(phantom):
            assert identifier not in texts[name], (name, identifier)
    # a test that cannot find them would not be one
    assert identifiers(phantom)[0] in "".join(texts_of(usual).values())
    # nor pixels
    assert "data:image/jpeg" in (usual / "report.html").read_text()
    assert "data:image/jpeg" not in texts["report.html"]
    assert (out / "metrics.csv").read_bytes() == (usual / "metrics.csv").read_bytes()
    for name in (f"{MODEL}_fold1_val.csv", "folds.csv", "labels.csv"):
        ours, theirs = (pd.read_csv(path / name, dtype=str) for path in (out, usual))
        left = [column for column in theirs if column not in ("ImageID", "PatientID", "StudyID")]
        assert ours[left].equals(theirs[left])
        images = pd.read_csv(phantom / "train.csv", dtype=str)["ImageID"].tolist()
        assert restore_names(ours["ImageID"].tolist(), images) == theirs["ImageID"].tolist()
    patients = pd.read_csv(usual / "folds.csv", dtype=str)["PatientID"]
    shown = pd.read_csv(out / "folds.csv", dtype=str)["PatientID"]
    assert (pd.factorize(patients)[0] == pd.factorize(shown)[0]).all()


def test_the_predictions_of_a_training_have_no_names_either(
    phantom: Path, train_method: Callable[[str], Train], tmp_path: Path
) -> None:
    submission = tmp_path / "submission.csv"
    words = ["--epochs", 1, "--run_folds", 1, "--anonymous", "--out_csv", submission]
    words += ["--test_csv", phantom / "test.csv", "--test_dir", phantom / "images"]
    assert train_method("label_coupling")(*flags(phantom, tmp_path / "out", *words))[0] == 0
    names = pd.read_csv(phantom / "test.csv", dtype=str)["ImageID"].tolist()
    assert restore_names(pd.read_csv(submission)["ImageID"].tolist(), names) == names
    assert not [name for name in names if name in submission.read_text()]


def test_predictions_without_names_are_scored_by_labels_in_the_same_order(
    infer: Call, call: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    base = ["--checkpoints", *checkpoints, "--image_dir", phantom / "images", "--no-use_tta"]
    base += ["--test_csv", phantom / "test.csv"]
    usual, hidden = tmp_path / "usual.csv", tmp_path / "hidden.csv"
    assert infer(*base, "--output", usual)[0] == 0
    assert infer(*base, "--output", hidden, "--anonymous")[0] == 0
    first, second = pd.read_csv(usual), pd.read_csv(hidden)
    assert all(re.fullmatch(r"[0-9a-f]{8}-\d{6}", name) for name in second["ImageID"])
    assert first.drop(columns="ImageID").equals(second.drop(columns="ImageID"))

    labels = ["--labels", phantom / "test_labels.csv", "--resamples", 0]
    scores = {}
    for path, more in ((usual, []), (hidden, ["--anonymous"])):
        code, _, error = call(evaluate, "--predictions", path, *labels, *more)
        assert code == 0, error
        scores[path] = json.loads(path.with_name(f"{path.stem}_metrics.json").read_text())
    assert scores[hidden]["per_class"] == scores[usual]["per_class"]
    assert str(tmp_path) in json.dumps(scores[usual]["made_from"])
    assert str(tmp_path) not in json.dumps(scores[hidden])
    assert scores[hidden]["made_from"]["predictions"] == ["hidden.csv"]

    turned = pd.read_csv(phantom / "test_labels.csv", dtype=str)[::-1]
    turned.to_csv(tmp_path / "turned.csv", index=False)
    code, _, error = call(
        evaluate, "--predictions", hidden, "--labels", tmp_path / "turned.csv", "--overwrite"
    )
    assert code == 2
    assert "match only the same list in the same order" in error


def test_a_leaderboard_without_names(
    infer: Call, call: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    files = []
    for path in checkpoints:
        files.append(tmp_path / f"{path.stem}.csv")
        base = ["--checkpoints", path, "--image_dir", phantom / "images", "--no-use_tta"]
        base += ["--test_csv", phantom / "test.csv", "--anonymous"]
        assert infer(*base, "--output", files[-1])[0] == 0
    labels = tmp_path / "labels.csv"
    table = pd.read_csv(phantom / "test_labels.csv", dtype=str)
    table.to_csv(labels, index=False)
    # one without some images, which --common leaves out and a note would name
    files.append(tmp_path / "fewer.csv")
    pd.read_csv(files[0])[3:].to_csv(files[-1], index=False)
    words = ["--predictions", *files, "--labels", labels, "--resamples", 20, "--common"]
    assert call(evaluate, *words, "--output", tmp_path / "s", "--anonymous")[0] == 0
    for name in ("s.json", "s.csv"):
        text = (tmp_path / name).read_text()
        assert files[0].name in text
        assert not [one for one in (*table["ImageID"], str(tmp_path)) if one in text]


def test_runs_without_names_can_be_chosen(
    phantom: Path, anonymous: Path, finished: tuple[Path, str], call: Call, tmp_path: Path
) -> None:
    """Their numbers stay, whoever reads which labels, unless --labels names the images."""
    runs = [Path(shutil.copytree(anonymous, tmp_path / f"run{number}")) for number in (0, 1)]
    words = ["--runs", *runs, "--output", tmp_path / "e.json", "--overwrite"]
    for labels in ([], ["--blank", "zero"], ["--labels", phantom / "train.csv"]):
        code, _, error = call(choose, *words, *labels)
        assert code == 0, error
        for name in ("e_oof.csv", "e_labels.csv"):
            names = pd.read_csv(tmp_path / name)["ImageID"]
            assert {is_numbered(one) for one in names} == {"--labels" not in labels}
    code, _, error = call(choose, *words[:2], finished[0], *words[3:])
    assert code == 2
    assert "some of these runs are anonymous and others are not: give the file" in error


def test_unreadable_images_are_listed_without_names(
    infer: Call, checkpoints: list[Path], phantom: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((phantom / "images").iterdir())[:4]:
        (images / f"patient_{path.name}").write_bytes(path.read_bytes())
    spoiled = sorted(images.iterdir())[2]
    spoiled.write_bytes(b"no image")
    words = ["--checkpoints", checkpoints[0], "--image_dir", images, "--no-use_tta", "--anonymous"]
    out = tmp_path / "p.csv"
    assert infer(*words, "--on_bad_image", "skip", "--output", out)[0] == 0
    texts = texts_of(tmp_path)
    assert set(texts) == {"p.csv", "p_skipped.csv", "p_training_overlap.json"}
    assert "patient_p" not in "".join(texts.values())
    assert len(pd.read_csv(out)) == 3
    names = sorted(path.name for path in images.iterdir())
    skipped = pd.read_csv(tmp_path / "p_skipped.csv")["ImageID"].tolist()
    assert restore_names(skipped, names) == [spoiled.name]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (
            ["--sample_submission", "s.csv"],
            "--sample_submission and --anonymous contradict each other",
        ),
        (["one.png"], "--anonymous is for many images"),
    ],
)
def test_what_needs_names_is_refused(infer: Call, more: list[str], sentence: str) -> None:
    code, _, error = infer("--checkpoints", "a.safetensors", "--anonymous", *more)
    assert code == 2
    assert sentence in error


def test_numbers_are_those_of_one_list_only() -> None:
    names = ["b.png", "a.png", "c.png"]
    hidden = number_names(names)
    assert [name[8:] for name in hidden] == ["-000001", "-000002", "-000003"]
    assert restore_names(hidden, names) == names
    assert restore_names([hidden[2]], names) == ["c.png"]
    assert restore_names(["x"], names) == ["x"]
    for other in (names[::-1], names[:2], [*names, "d.png"], ["b.png", "a.png", "d.png"]):
        assert not set(number_names(other)) & set(hidden)
        assert restore_names(hidden, other) == hidden
    many = number_names(list(map(str, range(1_000_001))))
    assert many[-1][8:] == "-1000001"
    assert len(set(many)) == len(many)
