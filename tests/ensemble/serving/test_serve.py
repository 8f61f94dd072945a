"""Endpoints of the page: the results and error messages of the commands."""

import base64
import io
import tempfile
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from benchmarks.studies.serve_load.clients import wrong_files
from core.data.images.decode import read_image
from core.errors import UserError
from core.models.checkpoint import load_tensors, save_tensors
from ensemble.heatmaps.maps import heat_maps
from ensemble.serving.form import file_of_form
from ensemble.serving.model import ServedModels
from methods import load_model
from tests.conftest import Call
from tests.helpers.calls import output_of
from tests.helpers.data.dicom_files import dicom
from tests.helpers.infer_files import reference_probabilities
from tests.helpers.served_page import LIMITS, calibrated, serve
from tests.helpers.training.small_run import MODEL


@pytest.fixture(scope="module")
def folds(finished: tuple[Path, str]) -> tuple[Path, ...]:
    """The two checkpoints of a small run."""
    return tuple(finished[0] / f"{MODEL}_fold{fold}.safetensors" for fold in (1, 2))


@pytest.fixture(scope="module")
def page(folds: tuple[Path, ...]) -> TestClient:
    return serve(checkpoints=folds)[1]


@pytest.fixture
def image(phantom: Path) -> Path:
    return sorted((phantom / "images").iterdir())[0]


def asked(page: TestClient, data: bytes) -> dict[str, Any]:
    answer = page.post("/predict", content=data)
    assert answer.status_code == 200, answer.text
    return answer.json()


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def probabilities(answer: dict[str, Any]) -> dict[str, float]:
    return {one["name"]: one["probability"] for one in answer["classes"]}


def pixels_of(address: str) -> np.ndarray:
    start = "data:image/png;base64,"
    assert address.startswith(start)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.removeprefix(start)))))


def test_probabilities_are_those_of_the_models(
    page: TestClient, folds: tuple[Path, ...], image: Path
) -> None:
    answer = asked(page, image.read_bytes())
    expected = np.mean([reference_probabilities(path, [image])[0] for path in folds], axis=0)
    names = load_model(folds[0])[1].class_names
    assert list(probabilities(answer)) == list(names)
    np.testing.assert_allclose(list(probabilities(answer).values()), expected, rtol=0, atol=1e-6)
    assert answer["image"] == {"width": 40, "height": 40}
    assert np.array_equal(pixels_of(answer["preview"]), read_image(image))
    without = page.post("/predict?preview=false", content=image.read_bytes()).json()
    assert without == {name: answer[name] for name in answer if name != "preview"}
    # without a calibration there are no thresholds
    assert not answer["calibrated"]
    assert {one["threshold"] for one in answer["classes"]} == {None}
    assert {one["positive"] for one in answer["classes"]} == {None}
    assert any("Not calibrated" in note for note in answer["notes"])


def test_the_page_shows_what_infer_writes(
    folds: tuple[Path, ...], image: Path, tmp_path: Path, infer: Call
) -> None:
    names = list(load_model(folds[0])[1].class_names)
    calibration = calibrated(tmp_path / "c.json", names)
    served, page = serve(
        checkpoints=folds,
        weights=(1, 3),
        calibration=calibration,
        postprocess="normal_gating",
        tta_config="flip_scale",
        ensemble_mode="logit_mean",
    )
    answer = asked(page, image.read_bytes())
    output_of(
        infer,
        *(image, "--checkpoints", *folds, "--weights", 1, 3, "--calibration", calibration),
        *("--postprocess", "normal_gating", "--tta_config", "flip_scale"),
        *("--ensemble_mode", "logit_mean", "--output", tmp_path / "p.csv"),
    )
    written = pd.read_csv(tmp_path / "p.csv", index_col=0).iloc[0]
    assert list(written.index) == names
    np.testing.assert_allclose(list(probabilities(answer).values()), written, rtol=1e-6, atol=0)
    # the thresholds are those for gated probabilities
    assert [one["threshold"] for one in answer["classes"]] == [0.2] * (len(names) - 1) + [None]
    for one in answer["classes"]:
        threshold = one["threshold"]
        assert one["positive"] == (None if threshold is None else one["probability"] >= threshold)
    assert answer["calibrated"]
    assert served.about()["calibrated"]
    assert "6 augmented copies" in answer["notes"][-1]
    assert "some of them mirrored" in answer["notes"][-1]


def test_thresholds_of_another_gating_are_not_shown(
    folds: tuple[Path, ...], image: Path, tmp_path: Path
) -> None:
    names = list(load_model(folds[0])[1].class_names)
    settings = {"checkpoints": folds, "calibration": calibrated(tmp_path / "c.json", names)}
    gated: dict[str, Any] = {"postprocess": "normal_gating"}
    for more, threshold in (
        ({}, 0.3),
        (gated | {"normal_alpha": 0.25}, 0.2),
        (gated | {"normal_alpha": 0.5}, None),
    ):
        answer = asked(serve(**settings, **more)[1], image.read_bytes())
        assert answer["classes"][0]["threshold"] == threshold
        assert any("No thresholds" in note for note in answer["notes"]) == (threshold is None)


def test_classes_are_grouped_by_the_training_counts(
    folds: tuple[Path, ...], tmp_path: Path
) -> None:
    tensors, facts = load_tensors(folds[0])
    names = facts["class_names"]
    # 0.7 % over both folds, though 2 % in one; 5 %; 30 %; never counted; nonsense
    counts = {names[0]: (2, 100), names[1]: (5, 100), names[2]: (30, 100), names[4]: (9, -1)}
    facts["training_positives"] = {name: pair[0] for name, pair in counts.items()}
    facts["training_known"] = {name: pair[1] for name, pair in counts.items()}
    save_tensors(tmp_path / "1.safetensors", tensors, facts)
    facts["training_positives"] = {names[0]: 5}
    facts["training_known"] = {names[0]: 900}
    save_tensors(tmp_path / "2.safetensors", tensors, facts)
    served, _ = serve(checkpoints=(tmp_path / "1.safetensors", tmp_path / "2.safetensors"))
    groups = [one["group"] for one in served.about()["classes"]]
    assert groups[:5] == ["tail", "medium", "head", "unknown", "unknown"]
    assert served.about()["classes"][0]["training_positives"] == 7
    assert served.about()["classes"][0]["training_known"] == 1000


def test_the_heat_map_is_the_mean_of_the_models(
    page: TestClient, folds: tuple[Path, ...], phantom: Path
) -> None:
    grey = read_image(sorted((phantom / "images").iterdir())[1])[:32, :32]
    answer = page.post("/map?class=Effusion", content=png(grey))
    assert answer.status_code == 200, answer.text
    maps = []
    for path in folds:
        model, info = load_model(path)
        # of the models' own size, so that nothing is resized
        assert info.image_size == 32
        places = [info.class_names.index("Effusion")]
        maps.append(heat_maps(model, torch.from_numpy(grey.copy())[None, None], places)[0, 0])
    expected = 255 * torch.stack(maps).mean(0).numpy()
    shown = pixels_of(answer.json()["map"])
    assert shown.shape == (32, 32)
    assert shown.max() > 50
    np.testing.assert_allclose(shown, expected, atol=0.51)


def test_dicom_is_shown_as_it_is_read(page: TestClient, tmp_path: Path) -> None:
    grey = np.arange(30 * 20, dtype=np.uint16).reshape(30, 20)
    data = dicom(grey, PhotometricInterpretation="MONOCHROME1", ViewPosition="<B>\n")
    (tmp_path / "a.dcm").write_bytes(data)
    answer = asked(page, data)
    assert answer["image"] == {"width": 20, "height": 30}
    assert np.array_equal(pixels_of(answer["preview"]), read_image(tmp_path / "a.dcm"))
    notes = " ".join(answer["notes"])
    for word in ("MONOCHROME1", r": <B>", "square"):
        assert word in notes


def test_a_large_image_is_shown_smaller(page: TestClient) -> None:
    answer = asked(page, png(np.full((1500, 3000), 7, np.uint8)))
    assert answer["image"] == {"width": 3000, "height": 1500}
    assert pixels_of(answer["preview"]).shape == (512, 1024)
    assert any("All pixels are equal" in note for note in answer["notes"])


def test_wrong_files_are_refused_by_the_sentence_of_the_commands(
    page: TestClient, image: Path, tmp_path: Path
) -> None:
    before = asked(page, image.read_bytes())
    files = wrong_files(LIMITS.bytes)
    # without a length too
    assert page.post("/predict", content=iter([bytes(50_000)] * 21)).status_code == 413
    for what, data in files.items():
        answer = page.post("/predict", content=data)
        if what == "too large":
            assert answer.status_code == 413
            assert "1.0 MB" in answer.json()["error"]
            assert "--max_megabytes" in answer.json()["error"]
            continue
        (tmp_path / "image").write_bytes(data)
        with pytest.raises(UserError) as error:
            read_image(tmp_path / "image")
        sentence = str(error.value).replace(str(tmp_path / "image"), "upload")
        assert (answer.status_code, answer.json()) == (422, {"error": sentence}), what
        assert page.post("/map?class=Mass", content=data).json() == {"error": sentence}
    assert asked(page, image.read_bytes()) == before


def test_a_form_with_the_file_is_the_file(page: TestClient, image: Path) -> None:
    data = image.read_bytes()
    form = {"file": (image.name, data)}
    more = {"note": "of the ward"}
    assert page.post("/predict", files=form, data=more).json() == asked(page, data)
    # at the address of the page itself
    short = page.post("/predict?preview=false", content=data).json()
    assert page.post("/", files=form).json() == short == page.post("/", content=data).json()
    path = "/map?class=Mass"
    assert page.post(path, files=form).json() == page.post(path, content=data).json()


@pytest.mark.parametrize(
    ("content", "status", "expected"),
    [
        (
            {"files": {"file": ("a.png", b"no image")}},
            422,
            "upload cannot be read: it is not a",
        ),
        ({"files": [("file", ("a.png", b"x")), ("file", ("b.png", b"x"))]}, 422, "too many files"),
        (
            {"files": {"note": (None, b"text")}},
            422,
            "the form has no file: send one image, such as curl",
        ),
        ({"files": {"file": ("a.png", bytes(LIMITS.bytes))}}, 413, "more than 1.0 MB"),
        ({"files": {f"{n}": (None, b"text") for n in range(17)}}, 422, "too many fields"),
        ({"content": b"--b\r\n\r\n--b--"}, 422, "the form cannot be read"),
    ],
)
def test_wrong_forms(page: TestClient, content: dict[str, Any], status: int, expected: str) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"} if "content" in content else {}
    for path in ("/", "/predict"):
        answer = page.post(path, headers=headers, **content)
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert expected in answer.json()["error"]


def test_a_charset_that_decodes_nothing_is_a_wrong_form(page: TestClient) -> None:
    headers = {"content-type": "multipart/form-data; boundary=b; charset=undefined"}
    part = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    answer = page.post("/predict", headers=headers, content=part)
    assert answer.status_code == 422
    assert "the form cannot be read (invalid charset)" in answer.json()["error"]


def test_a_large_form_is_not_written_to_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise AssertionError("a temporary file was made")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", fail)
    data = np.random.default_rng(0).bytes(5_000_000)
    request = httpx.Request("POST", "http://page/", files={"file": ("a.png", data)})
    body = request.read()
    assert anyio.run(file_of_form, Headers(dict(request.headers)), body) == data


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/map?class=Efusion", 422, "unknown class 'Efusion': did you mean 'Effusion'?"),
        ("/map", 422, "'class' in the address"),
        ("/predict?preview=x", 422, "'preview' in the address"),
        ("/predictions", 404, "Not Found"),
        ("/health", 405, "Method Not Allowed"),
    ],
)
def test_wrong_addresses(page: TestClient, path: str, status: int, expected: str) -> None:
    answer = page.post(path, content=b"x")
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert expected in answer.json()["error"]


def test_an_internal_error_reveals_nothing_of_the_request(
    folds: tuple[Path, ...], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, page = serve(checkpoints=folds[:1])

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    with monkeypatch.context() as failing:
        failing.setattr(ServedModels, "predict", fail)
        answer = page.post("/predict", content=image.read_bytes())
    assert answer.status_code == 500
    assert list(answer.json()) == ["error"]
    assert "secret" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert len(asked(page, image.read_bytes())["classes"]) == len(served.classes)
