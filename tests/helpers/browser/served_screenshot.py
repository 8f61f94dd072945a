"""A picture of the page of a running `python -m ensemble.serve` with an image and a heat map.

python -m tests.helpers.browser.served_screenshot \
    http://127.0.0.1:8000 phantom.png Effusion docs/serve.png
"""

import argparse
from pathlib import Path

from tests.helpers.browser.chromium import launched, opened


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("image", type=Path, help="a phantom: never a patient's")
    parser.add_argument("class_name", help="the class whose heat map is shown")
    parser.add_argument("output", type=Path, help="a .png")
    parser.add_argument("--width", type=int, default=1000, help="of the window, in CSS pixels")
    told = parser.parse_args()
    with launched() as browser, opened(browser, told.address, width=told.width) as seen:
        page = seen.page
        page.set_input_files("#file", told.image)
        page.locator(".class").filter(has_text=told.class_name).click()
        page.wait_for_selector("#map:not([hidden])")
        page.screenshot(path=told.output, full_page=True)


if __name__ == "__main__":
    main()
