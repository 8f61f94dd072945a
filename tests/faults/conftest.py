"""What the tests of faults share."""

from pathlib import Path

import pytest

from tests.helpers.faults.launches import Launches, shared, small_data


@pytest.fixture(scope="session")
def launches() -> Launches:
    """The process that forks commands."""
    return shared()


@pytest.fixture(scope="session")
def data() -> Path:
    """61 images, which divide neither by 2 nor by 4; nor do the folds."""
    return small_data()


@pytest.fixture
def mounts(launches: Launches) -> Launches:
    """That process where it has a small disk of its own."""
    if not launches.mounted:
        pytest.skip("this system lets nobody mount a file system of his own")
    return launches
