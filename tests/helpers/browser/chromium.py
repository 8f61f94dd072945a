"""Chromium for tests: opens a page and records its errors.

with launched() as browser, opened(browser, "http://127.0.0.1:8000", width=390) as seen:
    seen.page.click("text=Effusion")
    assert seen.errors == []
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

# a phone and a desktop, in CSS pixels
PHONE, DESKTOP = 375, 1280
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Opened:
    """An open page and its recorded errors and requests."""

    page: Page
    errors: list[str] = field(default_factory=list)
    """Errors of the console, uncaught ones of scripts, and requests that failed."""
    requests: list[str] = field(default_factory=list)
    """Addresses of all requests but that of the page itself; data: and blob: are none."""


@contextmanager
def launched() -> Iterator[Browser]:
    """Headless Chromium: the installed one, or else a downloaded one."""
    with sync_playwright() as playwright:
        if _program() is None and not Path(playwright.chromium.executable_path).is_file():
            _fetch()
        program = _program()
        browser = playwright.chromium.launch(executable_path=program)
        try:
            yield browser
        finally:
            browser.close()


def _program() -> str | None:
    """Path of the installed Chromium."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def _fetch() -> None:
    """Install a Chromium: playwright's, or else that of the system's packages."""
    install = [sys.executable, "-m", "playwright", "install", "--with-deps", "chromium"]
    if subprocess.run(install, check=False).returncode:
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-yqq", "chromium"], check=True)


@contextmanager
def opened(
    browser: Browser,
    place: str | Path,
    *,
    width: int = DESKTOP,
    height: int = 900,
    scale: float = 1,
) -> Iterator[Opened]:
    """The page at an address, or in a file, in a window of its own; `scale` pixels a CSS pixel."""
    address = place.absolute().as_uri() if isinstance(place, Path) else place
    context = browser.new_context(
        viewport={"width": width, "height": height}, device_scale_factor=scale
    )
    try:
        seen = Opened(context.new_page())

        def on_console(message: ConsoleMessage) -> None:
            if message.type == "error":
                seen.errors.append(f"console: {message.text}")

        def on_request(request: Request) -> None:
            own = request.is_navigation_request() and request.url.split("#")[0] == address
            if not own and not request.url.startswith(("data:", "blob:")):
                seen.requests.append(request.url)

        seen.page.on("console", on_console)
        seen.page.on("pageerror", lambda error: seen.errors.append(f"script: {error}"))
        seen.page.on(
            "requestfailed",
            lambda one: seen.errors.append(f"request: {one.url[:200]} {one.failure}"),
        )
        seen.page.on("request", on_request)
        seen.page.goto(address, wait_until="load")
        yield seen
    finally:
        context.close()


def overflow(page: Page) -> int:
    """Horizontal overflow of the page in CSS pixels (0 if it does not scroll sideways)."""
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def pictures_that_fail(page: Page) -> list[str]:
    """Pictures of the page that do not load or have no alternative text."""
    return page.evaluate(
        """async () => {
          const wrong = [];
          for (const image of document.images) {
            image.loading = "eager";
            await image.decode().catch(() => {});
            const name = image.src.slice(0, 60);
            if (!image.naturalWidth) wrong.push("does not load: " + name);
            if (!(image.getAttribute("alt") || "").trim()) wrong.push("no alt: " + name);
          }
          return wrong;
        }"""
    )
