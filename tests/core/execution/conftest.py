"""One Dask cluster for all tests that need a whole one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dask_cluster import Cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With one worker of one thread."""
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        running.start_worker()
        yield running
    finally:
        running.end()
