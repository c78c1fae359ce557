import pytest
from ray_cluster import ray_cluster
from shard_run import write_run


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Ray cluster of two nodes with one processor each, for the tests of one module."""
    with ray_cluster(tmp_path_factory.mktemp("ray")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def run(tmp_path_factory, radiographs, cheap_bundle, cli):
    """A folder with a list of eight shards, its engine, and the table of `score` without Ray; see `write_run`."""
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, radiographs, cheap_bundle, cli)
    return folder


@pytest.fixture
def parts(tmp_path):
    return tmp_path / "parts"
