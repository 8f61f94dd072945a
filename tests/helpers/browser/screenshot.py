"""Screenshot of a page, as in the README.

python -m tests.helpers.browser.screenshot demo/csra_db_cas/report.html docs/report.png
python -m tests.helpers.browser.screenshot http://127.0.0.1:8000 docs/serve.png \
    --width 1000 --full --image phantom.png --class_name Effusion
"""

import argparse
from pathlib import Path

from tests.helpers.browser.chromium import launched, opened


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", help="an address, or an HTML file")
    parser.add_argument("output", type=Path, help="a .png")
    parser.add_argument("--width", type=int, default=1280, help="of the window, in CSS pixels")
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--scale", type=float, default=1, help="pixels a CSS pixel")
    parser.add_argument("--top", type=int, default=0, help="scroll to here before")
    parser.add_argument("--full", action="store_true", help="the whole page, not its window alone")
    parser.add_argument("--image", type=Path, help="a phantom that a served page is given")
    parser.add_argument("--class_name", help="class to show the heat map of")
    words = parser.parse_args()
    place = words.page if "://" in words.page else Path(words.page)
    size = {"width": words.width, "height": words.height, "scale": words.scale}
    with launched() as browser, opened(browser, place, **size) as seen:
        page = seen.page
        if words.image:
            page.set_input_files("#file", words.image)
            page.locator(".class").filter(has_text=words.class_name).click()
            page.wait_for_selector("#map:not([hidden])")
        page.evaluate("top => window.scrollTo(0, top)", words.top)
        page.screenshot(path=words.output, full_page=words.full)


if __name__ == "__main__":
    main()
