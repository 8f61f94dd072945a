"""A picture of a page, as the README shows it.

python -m tests.helpers.browser.screenshot demo/csra_db_cas/report.html docs/report.png
python -m tests.helpers.browser.screenshot \
    http://127.0.0.1:8000 docs/page.png --width 900 --height 700
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
    told = parser.parse_args()
    place = told.page if "://" in told.page else Path(told.page)
    size = {"width": told.width, "height": told.height, "scale": told.scale}
    with launched() as browser, opened(browser, place, **size) as seen:
        seen.page.evaluate("top => window.scrollTo(0, top)", told.top)
        seen.page.screenshot(path=told.output, full_page=told.full)


if __name__ == "__main__":
    main()
