"""What the tests of hostile files share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.helpers.fuzz.harness import Watched

TARGETS = ["image_targets", "pack_targets", "checkpoint_targets", "text.targets"]


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The process that reads hostile files."""
    with Watched(tmp_path_factory.mktemp("fuzz"), TARGETS) as one:
        yield one


def of_any_content(
    strategy: st.SearchStrategy[Any], examples: int, look: Callable[[list[Any]], None], batch: int
) -> None:
    """`look` at so many batches that hypothesis draws, the same ones every time."""
    # nothing is kept between runs, and what fails is told without a search for something smaller
    rules = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        print_blob=False,
    )
    rules(given(st.lists(strategy, min_size=batch, max_size=batch))(look))()
