"""`ensemble.infer` on DICOM: one file, a folder without any CSV, studies from the headers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom import uid

from tests.helpers.calls import refusal
from tests.helpers.data.dicom_files import data_set, dataset, dicom
from tests.helpers.infer_files import Infer, predict_to_frame, write

STUDIES = [uid.generate_uid(), uid.generate_uid()]
NAMES = ["0.dcm", "1.DCM", "2.dicom", "series/IM0003", "series/1.2.840.4", "series/5.IMA"]


@pytest.fixture
def folder(six_images: list[Path], tmp_path: Path) -> Path:
    """The six images as DICOM under the names that hospitals give them, of two studies, two of them
    without preamble, and what lies beside them: an index, a text and checksums."""
    made = tmp_path / "dicom"
    (made / "series").mkdir(parents=True)
    for number, (image, name) in enumerate(zip(six_images, NAMES, strict=True)):
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
def start(checkpoints: list[Path], folder: Path) -> list[object]:
    return ["--checkpoints", *checkpoints, "--image_dir", folder, "--no-use_tta"]


def test_a_folder_a_file_and_studies_are_as_the_images(
    infer: Infer,
    six_flags: list,
    six_images: list[Path],
    start: list[object],
    folder: Path,
    tmp_path: Path,
) -> None:
    frame = predict_to_frame(infer, *six_flags, output=tmp_path / "png.csv")
    expected = frame.loc[[path.name for path in six_images]].to_numpy()
    frame = predict_to_frame(infer, *start, output=tmp_path / "p.csv")
    assert frame.index.tolist() == sorted(NAMES)
    assert np.abs(frame.loc[NAMES].to_numpy() - expected).max() < 1e-5

    one = [folder / "series/IM0003", *start[:3], "--no-use_tta"]
    frame = predict_to_frame(infer, *one, output=tmp_path / "one.csv")
    assert np.abs(frame.to_numpy() - expected[3]).max() < 1e-5

    frame = predict_to_frame(infer, *start, "--group_by", "study", output=tmp_path / "p.csv")
    assert frame.index.name == "StudyInstanceUID"
    # study 0 has images 0 and 2 (PA), 4 (LL); study 1 has 1 (PA), 3 and 5 (LL)
    first = (expected[[0, 2]].mean(0) + expected[4]) / 2
    second = (expected[1] + expected[[3, 5]].mean(0)) / 2
    assert np.abs(frame.loc[list(STUDIES)].to_numpy() - [first, second]).max() < 1e-5


def test_studies_missing_in_the_headers(
    infer: Infer, start: list[object], folder: Path, tmp_path: Path
) -> None:
    (folder / "silent.dcm").write_bytes(dicom(np.zeros((40, 40), np.uint8)))
    sample = write(tmp_path / "s.csv", pd.DataFrame({"ImageID": ["0.dcm"], "Mass": [0]}))
    for flags, expected in (
        ([], "1 of 7 DICOM headers lack a study: silent.dcm"),
        (["--view_column", "view"], "--view_column is a column of --test_csv"),
        (["--sample_submission", sample], "--group_by is a column of --test_csv"),
        ([folder / "0.dcm"], "--group_by is for many images"),
    ):
        more = ["--group_by", "study", "--output", tmp_path / "p.csv"]
        assert expected in refusal(infer, *flags, *start, *more)
    assert not (tmp_path / "p.csv").exists()


def test_what_cannot_be_shown_is_named_or_skipped(
    infer: Infer, start: list[object], folder: Path, tmp_path: Path
) -> None:
    (folder / "report.dcm").write_bytes(dataset(SOPClassUID=uid.BasicTextSRStorage))
    output = tmp_path / "p.csv"
    error = refusal(infer, *start, "--output", output)
    assert "report.dcm" in error
    assert "Basic Text SR Storage" in error
    assert not output.exists()
    assert len(predict_to_frame(infer, *start, "--on_bad_image", "skip", output=output)) == 6
    assert "without pixels" in (tmp_path / "p_skipped.csv").read_text()
