"""The page of `python -m ensemble.serve` in a real browser, from the upload to the heat map."""

import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.studies.serve_load.clients import served
from core.data.images.decode import read_image
from core.errors import UserError
from core.models.checkpoint import load_tensors, save_tensors
from ensemble.predict.calibration import Calibration, Identity, write_calibration
from methods import load_model
from tests.helpers.browser.chromium import (
    DESKTOP,
    PHONE,
    launched,
    opened,
    overflow,
    pictures_that_fail,
)
from tests.helpers.data.dicom_files import dicom
from tests.helpers.training.small_run import MODEL

pytestmark = pytest.mark.browser

CLOSE = "Mass"
HOSTILE = "<img src=x onerror=alert(1)>"
# a browser says so itself of every answer of 4xx
EXPECTED = "console: Failed to load resource: the server responded with a status of 422"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.fixture(scope="module")
def address(
    finished: tuple[Path, str], phantom: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A process that serves a small run, one class of which has a hostile name, and one a threshold
    a hair above the first image; it writes no file and ends at Ctrl-C."""
    folder = tmp_path_factory.mktemp("serve")
    tensors, facts = load_tensors(finished[0] / f"{MODEL}_fold1.safetensors")
    names = facts["class_names"] = [HOSTILE, *facts["class_names"][1:]]
    facts["training_positives"] = dict.fromkeys(names, 20) | {HOSTILE: 1}
    facts["training_known"] = dict.fromkeys(names, 1000)
    save_tensors(folder / "c.safetensors", tensors, facts)
    maps = {name: Identity(threshold=0.5) for name in names}
    maps[HOSTILE] = Identity(threshold=1e-6)
    first = load_model(folder / "c.safetensors").predict(sorted((phantom / "images").iterdir())[0])
    maps[CLOSE] = Identity(threshold=float(first[CLOSE].iloc[0]) + 2e-6)
    write_calibration(folder / "calibration.json", Calibration(maps, None, 0), {})
    empty = folder / "empty"
    (empty / "tmp").mkdir(parents=True)
    more = ("--calibration", str(folder / "calibration.json"))
    with served([folder / "c.safetensors"], empty, *more) as (process, port):
        yield f"http://127.0.0.1:{port}/"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert [path for path in empty.rglob("*") if path.is_file()] == []


@pytest.fixture
def image(phantom: Path) -> Path:
    return sorted((phantom / "images").iterdir())[0]


def drawn(page: Page) -> int:
    """Largest opacity of the heat map, of 255."""
    return page.evaluate(
        """() => {
          const map = document.getElementById("map");
          const size = [map.width, map.height];
          const data = map.getContext("2d").getImageData(0, 0, ...size).data;
          return Math.max(...data.filter((_, place) => place % 4 === 3));
        }"""
    )


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_from_upload_to_heat_map(browser: Browser, address: str, image: Path, width: int) -> None:
    with opened(browser, address, width=width) as seen:
        page = seen.page
        expect(page.get_by_text("Research use only. Not a medical device.")).to_be_visible()
        assert overflow(page) == 0
        page.set_input_files("#file", image)
        rows = page.locator(".class")
        expect(rows).to_have_count(15)
        assert overflow(page) == 0
        assert pictures_that_fail(page) == []
        expect(page.locator("#calibrated")).to_have_text("calibrated")
        close = rows.filter(has_text=CLOSE)
        expect(close).to_have_class("class")
        numbers = [close.locator(part).inner_text().split()[-2] for part in (".value", ".limit")]
        assert float(numbers[0]) < float(numbers[1])
        # the digits that it takes, and no more
        assert 3 <= len(numbers[0].partition(".")[2]) <= 5
        shown = [text.split() for text in page.locator(".value").all_inner_texts()]
        values = [float(words[-2]) for words in shown if words[-2] != numbers[0]]
        assert values == sorted(values, reverse=True)
        limit = rows.filter(has_text=HOSTILE).locator(".limit")
        expect(limit).to_have_text("≥ 0.0001 %")
        # as text, and marked: in 1 of 1,000 training images, and above its threshold
        hostile = rows.filter(has_text=HOSTILE)
        expect(hostile).to_have_count(1)
        expect(hostile.locator(".tail")).to_have_text("tail class (< 1 %)")
        expect(page.locator(".tail")).to_have_count(1)
        expect(hostile).to_have_class("class positive")
        assert page.locator(".tick").count() == 15

        # by keyboard, a class with a non-empty map
        row = rows.filter(has_text="Cardiomegaly")
        row.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#map")).to_be_visible()
        expect(row).to_have_attribute("aria-pressed", "true")
        assert drawn(page) > 200
        # both at once, as the page may be scrolling
        boxes = page.evaluate(
            """() => ["image", "map"].map((id) => {
              const box = document.getElementById(id).getBoundingClientRect();
              return [box.x, box.y, box.width, box.height];
            })"""
        )
        assert boxes[0] == boxes[1]
        page.locator("#opacity").fill("20")
        assert page.locator("#map").evaluate("map => map.style.opacity") == "0.2"
        hostile.click()
        expect(page.locator("#status")).to_contain_text(f"Heat map of {HOSTILE} (")
        expect(page.locator("#map")).to_be_visible()
        assert overflow(page) == 0
        hostile.click()
        expect(page.locator("#map")).to_be_hidden()
        assert seen.errors == []
        assert all(place.startswith(address) for place in seen.requests)


def test_a_wrong_file_is_reported_and_the_next_one_is_read(
    browser: Browser, address: str, image: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(image.read_bytes()[:200])
    with pytest.raises(UserError) as refused:
        read_image(cut)
    with opened(browser, address, width=PHONE) as seen:
        page = seen.page
        page.set_input_files("#file", image)
        expect(page.locator(".class")).to_have_count(15)
        page.set_input_files("#file", cut)
        expect(page.get_by_role("alert")).to_have_text(
            str(refused.value).replace(str(cut), "upload")
        )
        expect(page.locator("#status")).to_have_text("cut.png")
        expect(page.locator("#results")).to_be_hidden()
        # larger than the server takes: it is not even sent
        (tmp_path / "large.png").write_bytes(os.urandom(9_000_000))
        page.set_input_files("#file", tmp_path / "large.png")
        expect(page.get_by_role("alert")).to_contain_text("the file has more than 8.0 MB")
        page.set_input_files("#file", image)
        expect(page.locator(".class")).to_have_count(15)
        expect(page.locator("#bad")).to_be_hidden()
        assert overflow(page) == 0
        assert [error for error in seen.errors if not error.startswith(EXPECTED)] == []


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_dicom_file_that_is_dropped_or_pasted(browser: Browser, address: str, way: str) -> None:
    grey = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60)
    with opened(browser, address) as seen:
        page = seen.page
        data = base64.b64encode(dicom(grey)).decode()
        page.evaluate(
            """([way, text]) => {
              const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
              const data = new DataTransfer();
              data.items.add(new File([bytes], "scan.dcm"));
              const more = way === "drop" ? { dataTransfer: data } : { clipboardData: data };
              const kind = way === "drop" ? DragEvent : ClipboardEvent;
              document.dispatchEvent(new kind(way, more));
            }""",
            [way, data],
        )
        expect(page.locator("#caption")).to_have_text("scan.dcm, 60 \u00d7 40 pixels")
        source = page.locator("#image").get_attribute("src") or ""
        shown = np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8)
        # brighter from corner to corner, as the file is
        pixels = np.asarray(cv2.imdecode(shown, cv2.IMREAD_UNCHANGED))
        assert pixels.shape == (40, 60)
        assert (np.diff(pixels.ravel().astype(int)) >= 0).all()
        assert seen.errors == []


def test_an_unreachable_server_is_reported(browser: Browser, address: str, image: Path) -> None:
    with opened(browser, address) as seen:
        page = seen.page
        expect(page.locator("#models li")).to_have_count(1)
        page.route("**/predict", lambda route: route.abort())
        page.set_input_files("#file", image)
        expect(page.get_by_role("alert")).to_have_text(
            "The server does not answer: is it still running?"
        )


def test_a_file_changed_since_its_selection_is_reported(
    browser: Browser, address: str, image: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given.png"
    given.write_bytes(image.read_bytes())
    with opened(browser, address) as seen:
        page = seen.page
        page.evaluate("document.getElementById('file').onchange = null")
        page.set_input_files("#file", given)
        # of a folder that is dropped, a browser too gives a file that it cannot read
        given.unlink()
        page.evaluate("take(document.getElementById('file').files)")
        expect(page.get_by_role("alert")).to_contain_text("The file cannot be read: it is a folder")
        page.set_input_files("#file", image)
        page.evaluate("take(document.getElementById('file').files)")
        expect(page.locator(".class")).to_have_count(15)
