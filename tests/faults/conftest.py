"""Fixtures for fault tests."""

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
    """The fork server, where it has its own small disk."""
    if not launches.mounted:
        pytest.skip("this system does not allow user mounts")
    return launches
