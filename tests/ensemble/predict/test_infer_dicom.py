"""`ensemble.infer` on DICOM: one file, a folder without any CSV, studies from the headers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom import uid

from tests.helpers.data.dicom_files import data_set, dataset, dicom
from tests.helpers.infer_files import Infer, predicted, write

STUDIES = [uid.generate_uid(), uid.generate_uid()]


@pytest.fixture
def folder(six_images: list[Path], tmp_path: Path) -> Path:
    """The six images as DICOM under the names that hospitals give them, of two studies, two of them
    without preamble, and what lies beside them: an index, a text and checksums."""
    made = tmp_path / "dicom"
    (made / "series").mkdir(parents=True)
    names = ["0.dcm", "1.DCM", "2.dicom", "series/IM0003", "series/1.2.840.4", "series/5.IMA"]
    for number, (image, name) in enumerate(zip(six_images, names, strict=True)):
        header: dict[str, Any] = {
            "PatientID": "1",
            "StudyInstanceUID": STUDIES[number % 2],
            "ViewPosition": ["PA", "LL"][number // 3],
        }
        data = dicom(np.asarray(Image.open(image)), **header)
        (made / name).write_bytes(data_set(data) if number in (3, 5) else data)
    (made / "DICOMDIR").write_bytes(dataset(SOPClassUID=uid.MediaStorageDirectoryStorage))
    (made / "LICENSE").write_text("no image")
    (made / "series" / "md5sums").write_text(f"{'0' * 32}  5.IMA\n" * 60)
    return made


@pytest.fixture
def expected(infer: Infer, six_flags: list, six_images: list[Path], tmp_path: Path) -> np.ndarray:
    """What is said of the six images as PNG files, in their order, (6, C)."""
    frame = predicted(infer, *six_flags, output=tmp_path / "png.csv")
    return frame.loc[[path.name for path in six_images]].to_numpy()


def test_a_folder_without_any_csv(
    infer: Infer, checkpoints: list[Path], folder: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    flags = ["--checkpoints", *checkpoints, "--image_dir", folder, "--no-use_tta"]
    frame = predicted(infer, *flags, output=tmp_path / "p.csv")
    names = ["0.dcm", "1.DCM", "2.dicom", "series/IM0003", "series/1.2.840.4", "series/5.IMA"]
    assert frame.index.tolist() == sorted(names)
    assert np.abs(frame.loc[names].to_numpy() - expected).max() < 1e-5


def test_names_without_ending_in_a_sample(
    infer: Infer, checkpoints: list[Path], folder: Path, tmp_path: Path
) -> None:
    ids = ["0", "1", "2", "IM0003", "1.2.840.4", "5"]
    sample = write(tmp_path / "s.csv", pd.DataFrame({"ImageID": ids, "Mass": 0}))
    flags = ["--checkpoints", *checkpoints, "--image_dir", folder, "--no-use_tta"]
    more = ["--sample_submission", sample]
    frame = predicted(infer, *flags, *more, output=tmp_path / "p.csv")
    assert frame.index.tolist() == ids


def test_one_file(
    infer: Infer, checkpoints: list[Path], folder: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    code, out, error = infer(
        *(folder / "series/IM0003", "--checkpoints", *checkpoints, "--no-use_tta"),
        *("--output", tmp_path / "one.csv"),
    )
    assert code == 0, error
    assert "IM0003" in out
    one = pd.read_csv(tmp_path / "one.csv", index_col=0)
    assert np.abs(one.to_numpy() - expected[3]).max() < 1e-5


def test_studies_from_the_headers(
    infer: Infer, checkpoints: list[Path], folder: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    flags = ["--checkpoints", *checkpoints, "--image_dir", folder, "--no-use_tta"]
    frame = predicted(infer, *flags, "--group_by", "study", output=tmp_path / "p.csv")
    assert frame.index.name == "StudyInstanceUID"
    # study 0 has images 0 and 2 (PA), 4 (LL); study 1 has 1 (PA), 3 and 5 (LL)
    first = (expected[[0, 2]].mean(0) + expected[4]) / 2
    second = (expected[1] + expected[[3, 5]].mean(0)) / 2
    assert np.abs(frame.loc[list(STUDIES)].to_numpy() - [first, second]).max() < 1e-5


def test_studies_that_the_headers_do_not_tell(
    infer: Infer, checkpoints: list[Path], folder: Path, phantom: Path, tmp_path: Path
) -> None:
    start = ["--checkpoints", checkpoints[0], "--no-use_tta", "--output", tmp_path / "p.csv"]
    (folder / "silent.dcm").write_bytes(dicom(np.zeros((40, 40), np.uint8)))
    sample = write(tmp_path / "s.csv", pd.DataFrame({"ImageID": ["0.dcm"], "Mass": [0]}))
    grouped = ["--image_dir", folder, "--group_by", "study"]
    for flags, told in (
        (grouped, "1 of 7 DICOM headers name no study: silent.dcm"),
        (
            ["--image_dir", phantom / "images", "--group_by", "study"],
            "images are no DICOM files: p00000_00.png",
        ),
        ([*grouped, "--view_column", "view"], "--view_column names a column of --test_csv"),
        ([*grouped, "--sample_submission", sample], "--group_by names a column of --test_csv"),
        ([folder / "0.dcm", "--group_by", "study"], "--group_by is for many images"),
    ):
        code, _, error = infer(*flags, *start)
        assert (code, error.count("\n")) == (2, 1), error
        assert told in error
    assert not (tmp_path / "p.csv").exists()


def test_what_cannot_be_shown_is_named_or_skipped(
    infer: Infer, checkpoints: list[Path], folder: Path, tmp_path: Path
) -> None:
    (folder / "report.dcm").write_bytes(dataset(SOPClassUID=uid.BasicTextSRStorage))
    flags = ["--checkpoints", checkpoints[0], "--no-use_tta", "--image_dir", folder]
    output = tmp_path / "p.csv"
    code, _, error = infer(*flags, "--output", output)
    assert (code, error.count("\n")) == (2, 1), error
    assert "report.dcm" in error
    assert "Basic Text SR Storage" in error
    assert not output.exists()
    frame = predicted(infer, *flags, "--on_bad_image", "skip", output=output)
    assert len(frame) == 6
    assert "without pixels" in (tmp_path / "p_skipped.csv").read_text()


def test_a_size_limit_that_is_no_number_stops_the_run(
    infer: Infer, six_flags: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_MAX_PIXELS", "1e9")
    more = ["--on_bad_image", "skip", "--output", tmp_path / "p.csv"]
    code, _, error = infer(*six_flags, *more)
    assert code == 2
    assert error.startswith("error: The environment variable CXR_MAX_PIXELS is '1e9'")
