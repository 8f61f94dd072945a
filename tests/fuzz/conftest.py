"""Fixtures for tests of hostile files."""

from collections.abc import Iterator

import pytest

from tests.helpers.fuzz.harness import Watched

TARGETS = ["image_targets", "pack_targets", "checkpoint_targets", "text.targets"]
# which the children would each import
TARGETS += ["core.data.images.tiff", "core.data.images.dicom.pixels"]


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The process that reads hostile files."""
    with Watched(tmp_path_factory.mktemp("fuzz"), TARGETS) as one:
        yield one
