import pytest
from ray_cluster import ray_cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray cluster of two nodes with one processor each, for the tests of one module."""
    with ray_cluster(tmp_path_factory.mktemp("ray")) as cluster:
        yield cluster
