"""Run report in a real browser: phone, desktop and print layout."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.helpers.browser.chromium import (
    DESKTOP,
    PHONE,
    Opened,
    launched,
    opened,
    overflow,
    pictures_that_fail,
)

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as one:
        yield one


@pytest.fixture(params=[PHONE, DESKTOP])
def seen(
    request: pytest.FixtureRequest, browser: Browser, finished: tuple[Path, str]
) -> Iterator[Opened]:
    with opened(browser, finished[0] / "report.html", width=request.param) as one:
        yield one


def column(seen: Opened, heading: str, table: str = "Classes") -> list[str]:
    """Cells of a column, top to bottom."""
    return seen.page.evaluate(
        """([heading, name]) => {
          const table = document.querySelector(`[aria-label="${name}"] table`);
          const place = [...table.tHead.rows[0].cells].findIndex(
            (cell) => cell.textContent.startsWith(heading));
          return [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
        }""",
        [heading, table],
    )


def numbers(cells: list[str]) -> list[float]:
    """Numbers of the cells that have one: "0.5 [0.4, 0.6]" is 0.5."""
    return [float(cell.split(" ")[0].replace(",", "")) for cell in cells if cell != "-"]


def test_it_opens_without_errors_and_asks_for_nothing(seen: Opened) -> None:
    assert seen.errors == []
    assert seen.requests == []
    assert overflow(seen.page) <= 0
    assert pictures_that_fail(seen.page) == []
    # six pictures, and the worst cases of fourteen classes
    assert seen.page.locator("img[src^='data:image/png']").count() == 6
    assert seen.page.locator("#worst img[src^='data:image/jpeg']").count() > 20
    assert seen.page.locator("h1").inner_text().startswith("out: test_efficientnet, 2 of 2 folds")


def test_tables_sort_by_click_and_by_keyboard(seen: Opened) -> None:
    def rows() -> set[tuple[str, ...]]:
        return set(zip(*(column(seen, name) for name in ("Class", "Positives", "AP")), strict=True))

    before, whole = column(seen, "Class"), rows()
    ap = seen.page.locator("[aria-label='Classes'] th", has_text="AP")
    ap.locator("button").click()
    falling = column(seen, "AP")
    assert ap.get_attribute("aria-sort") == "descending"
    assert numbers(falling) == sorted(numbers(falling), reverse=True)
    assert column(seen, "Class") != before
    assert rows() == whole
    ap.locator("button").focus()
    seen.page.keyboard.press("Enter")
    rising = column(seen, "AP")
    assert ap.get_attribute("aria-sort") == "ascending"
    assert numbers(rising) == sorted(numbers(rising))
    # what has no number stays below
    assert rising[: len(numbers(rising))] == [cell for cell in rising if cell != "-"]
    name = seen.page.locator("[aria-label='Classes'] th[scope=col]", has_text="Class")
    seen.page.locator("[aria-label='Classes'] th[scope=col] button").first.focus()
    seen.page.keyboard.press("Space")
    assert name.get_attribute("aria-sort") == "ascending"
    assert ap.get_attribute("aria-sort") is None
    assert column(seen, "Class") == sorted(column(seen, "Class"), key=str.casefold)
    assert seen.errors == []


def test_a_table_wider_than_the_window_has_a_hint_that_it_scrolls(seen: Opened) -> None:
    page = seen.page
    box = page.locator("[aria-label='Classes']")
    hint = "box => getComputedStyle(box, '::before').content"
    wider = box.evaluate("box => box.scrollWidth > box.clientWidth")
    assert wider == (page.viewport_size == {"width": PHONE, "height": 900})
    assert ("Scrolls sideways." in box.evaluate(hint)) == wider
    assert box.evaluate("box => { box.scrollLeft = 9999; return box.scrollLeft > 0; }") == wider
    page.set_viewport_size({"width": DESKTOP, "height": 900})
    page.wait_for_function(f"({hint})(document.querySelector('[aria-label=Classes]')) == 'none'")


def test_a_script_in_a_name_would_not_run(seen: Opened) -> None:
    """The page's own rule stops what would come in beside its one script."""
    seen.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.stranger = 1";
          document.body.append(script);
        }"""
    )
    assert seen.page.evaluate("window.stranger") is None
    assert any("Content Security Policy" in error for error in seen.errors)


def test_it_can_be_printed(seen: Opened) -> None:
    seen.page.emulate_media(media="print")
    assert seen.page.locator("nav").is_hidden()
    pdf = io.BytesIO(seen.page.pdf(format="A4")).getvalue()
    assert pdf.startswith(b"%PDF")
    pages = pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type /Page/")
    assert 3 <= pages <= 30
