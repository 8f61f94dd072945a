"""`ensemble.infer`: rows and columns of its output, for images and studies."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from methods import load_model
from tests.helpers.calls import output_of, refusal
from tests.helpers.infer_files import (
    Infer,
    copy_images,
    predict_to_frame,
    reference_probabilities,
    write,
)


def test_studies_are_merged_by_their_views(
    infer: Infer, six_flags: list, six_images: list[Path], tmp_path: Path
) -> None:
    alone = predict_to_frame(infer, *six_flags, output=tmp_path / "p.csv").to_numpy()
    frame = pd.DataFrame(
        {
            "ImageID": [path.name for path in six_images],
            "exam": ["s2", "s1", "s2", "s2", "s3", "s1"],
            "ViewPosition": ["PA", "AP", "LATERAL", "AP", "", "LL"],
        }
    )
    grouped = ["--test_csv", write(tmp_path / "views.csv", frame), "--group_by", "exam"]
    found = predict_to_frame(infer, *six_flags, *grouped, output=tmp_path / "s.csv")
    assert found.index.name == "exam"
    assert list(found.index) == ["s2", "s1", "s3"]
    s2 = ((alone[0] + alone[3]) / 2 + alone[2]) / 2
    expected = np.array([s2, (alone[1] + alone[5]) / 2, alone[4]])
    np.testing.assert_allclose(found.to_numpy(), expected, atol=1e-6)

    sample = pd.DataFrame({"StudyId": ["s3", "s2"], found.columns[2]: 0, found.columns[0]: 0.5})
    more = ["--sample_submission", write(tmp_path / "sample.csv", sample)]
    picked = predict_to_frame(infer, *six_flags, *grouped, *more, output=tmp_path / "s.csv")
    assert picked.index.name == "StudyId"
    assert list(picked) == list(sample)[1:]
    rows = found[list(picked)].loc[["s3", "s2"]]
    np.testing.assert_allclose(picked.to_numpy(), rows.to_numpy(), atol=1e-6)


def test_a_sample_submission_selects_rows_and_columns(
    infer: Infer, six_flags: list, six_images: list[Path], tmp_path: Path
) -> None:
    every = predict_to_frame(infer, *six_flags, output=tmp_path / "p.csv")
    columns = list(map(str, every))[::-2]
    rows = [six_images[place].name for place in (4, 1, 2)]
    sample = pd.DataFrame({"id": rows} | dict.fromkeys(columns, 0.5))
    more = ["--sample_submission", write(tmp_path / "sample.csv", sample)]
    # also without a --test_csv
    for arguments in (six_flags, six_flags[:-2]):
        found = predict_to_frame(infer, *arguments, *more, output=tmp_path / "s.csv")
        assert found.index.name == "id"
        pd.testing.assert_frame_equal(found, every[columns].loc[rows], atol=1e-6, check_names=False)
    for frame, expected in (
        (sample.assign(id=["x.png", *rows[1:]]), "1 of 3 rows of"),
        (sample.assign(Unheard=0), "1 column(s) of"),
        (sample[["id"]], "then a named column for each class"),
    ):
        wrong = ["--sample_submission", write(tmp_path / "wrong.csv", frame)]
        assert expected in refusal(infer, *six_flags, *wrong, "--output", tmp_path / "w.csv")
        assert not (tmp_path / "w.csv").exists()


def test_a_single_image_prints_a_table(
    infer: Infer, checkpoints: list[Path], six_images: list[Path], tmp_path: Path
) -> None:
    names = load_model(checkpoints[0])[1].class_names
    expected = pd.Series(reference_probabilities(checkpoints[0], six_images[2:3])[0], index=names)
    model, out = ["--checkpoints", checkpoints[0]], tmp_path / "1.csv"
    for words in (["--image_dir", six_images[2]], [six_images[2]]):
        printed = output_of(infer, *words, *model, "--output", out, "--overwrite")
        lines = [line.split() for line in printed.splitlines() if line.startswith("  ")]
        shown = pd.Series({name: float(number) for number, name in lines[-len(names) :]})
        assert list(shown.index) == list(expected.sort_values(ascending=False).index)
        np.testing.assert_allclose(shown, expected[shown.index], atol=6e-5)
        found = pd.read_csv(out, index_col=0)
        np.testing.assert_allclose(found.loc[six_images[2].name, list(names)], expected, atol=1e-6)
    (tmp_path / "bad.png").write_bytes(six_images[0].read_bytes()[:100])
    assert "bad.png cannot be read" in refusal(infer, tmp_path / "bad.png", *model)


def test_unreadable_images_are_left_out_and_listed_if_asked_for(
    infer: Infer, six_flags: list, checkpoints: list[Path], six_images: list[Path], tmp_path: Path
) -> None:
    folder = copy_images(six_images, tmp_path / "images")
    (folder / six_images[1].name).write_bytes(b"")
    (folder / six_images[4].name).write_bytes(six_images[4].read_bytes()[:90])
    out, listed = tmp_path / "p.csv", tmp_path / "p_skipped.csv"
    spoiled = [*six_flags, "--image_dir", folder, "--batch_size", 2, "--output", out]
    skip = [*spoiled, "--on_bad_image", "skip"]
    names = f"{six_images[1].name}, {six_images[4].name}"
    assert f"2 of 6 images cannot be read: {names}" in refusal(infer, *spoiled)
    assert not out.exists()
    # the predictions of the first start are kept
    assert "Resuming: 1 of 1 blocks are done." in output_of(infer, *skip)
    found = pd.read_csv(out, index_col=0)
    kept = [six_images[place] for place in (0, 2, 3, 5)]
    assert list(found.index) == [path.name for path in kept]
    expected = sum(reference_probabilities(path, kept, mirror=False) for path in checkpoints) / 2
    np.testing.assert_allclose(found.to_numpy(), expected, atol=2e-6)
    table = pd.read_csv(listed)
    assert list(table["ImageID"]) == [six_images[1].name, six_images[4].name]
    assert table["reason"].str.contains("cannot be read").all()
    # repaired, there is nothing left to list
    for place in (1, 4):
        shutil.copy(six_images[place], folder)
    assert infer(*skip, "--overwrite")[0] == 0
    assert not listed.exists()
    # a list of somebody else's stays
    listed.write_text("mine")
    assert "would replace" in refusal(infer, *skip, "--overwrite")
    assert infer(*spoiled, "--overwrite")[0] == 0
    assert listed.read_text() == "mine"

    for path in folder.iterdir():
        path.write_bytes(b"")
    error = refusal(infer, *skip, "--output", tmp_path / "q.csv")
    assert "6 of 6 images cannot be read" in error
    assert "--on_bad_image" not in error


def test_a_study_with_skipped_images_is_listed(
    infer: Infer, six_flags: list, six_images: list[Path], tmp_path: Path
) -> None:
    folder = copy_images(six_images, tmp_path / "images")
    (folder / six_images[1].name).write_bytes(b"")
    names = [path.name for path in six_images[:3]]
    csv = write(tmp_path / "s.csv", pd.DataFrame({"ImageID": names, "exam": ["a", "b", "a"]}))
    out = tmp_path / "p.csv"
    more = ["--image_dir", folder, "--test_csv", csv, "--group_by", "exam", "--output", out]
    assert "1 study of 2 images" in output_of(infer, *six_flags, *more, "--on_bad_image", "skip")
    assert list(pd.read_csv(out)["exam"]) == ["a"]
    listed = pd.read_csv(tmp_path / "p_skipped.csv")
    assert listed[["ImageID", "StudyID"]].to_numpy().tolist() == [[six_images[1].name, "b"]]
