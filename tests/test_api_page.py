"""docs/api.md is what `make docs` makes of the docstrings."""

import runpy

from tests.helpers.training.small_run import ROOT


def test_the_page_is_up_to_date() -> None:
    render = runpy.run_path(str(ROOT / "docs" / "make_api.py"))["render"]
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert render() == page, "run `make docs`"
