"""What can be said of a Ray cluster without one; and that nothing but --ray imports Ray."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from cheap_engine import cheap_bundle as build_cheap_bundle

from cxr_trt.cluster.actors import (
    ActorOptions,
    Place,
    check_room_for_shards,
    chosen,
    decoder_places,
    describe,
    places,
)
from cxr_trt.cluster.bundles import bundle_key, node_bundles, open_cached, read_bundle
from cxr_trt.cluster.scoring import ScoredFile
from cxr_trt.cluster.shards import Shards
from cxr_trt.cluster.tasks import Task
from cxr_trt.engine.manifest import MANIFEST_FILE, read_manifest
from cxr_trt.errors import BundleError, UsageError
from cxr_trt.tables.rows import Row

CPU_NODES = {"head": {"CPU": 0.0}, "a": {"CPU": 8.0}, "b": {"CPU": 4.0}}
GPU_NODES = {"a": {"CPU": 4.0}, "b": {"CPU": 32.0, "GPU": 4.0}, "c": {"CPU": 16.0, "GPU": 1.0}}
FOR_CPUS = {"for_gpus": False, "for_cpus": True}
FOR_GPUS = {"for_gpus": True, "for_cpus": False}
FOR_BOTH = {"for_gpus": True, "for_cpus": True}


@pytest.mark.parametrize(
    ("nodes", "kinds", "cpus", "gpus", "expected"),
    [
        (CPU_NODES, FOR_CPUS, None, 1, "a8 b4"),
        (CPU_NODES, FOR_CPUS, 8.0, 1, "a8"),
        (CPU_NODES, FOR_CPUS, 2.0, 1, "a2 b2 a2 b2 a2 a2"),
        (CPU_NODES, FOR_BOTH, None, 1, "a8 b4"),
        (GPU_NODES, FOR_CPUS, None, 1, "a4 b32 c16"),
        (GPU_NODES, FOR_GPUS, None, 1, "b8+1 c16+1 b8+1 b8+1 b8+1"),
        (GPU_NODES, FOR_GPUS, None, 2, "b16+2 b16+2"),
        (GPU_NODES, FOR_GPUS, None, 0.5, "b4+0.5 c8+0.5 b4+0.5 c8+0.5" + " b4+0.5" * 6),
        (GPU_NODES, FOR_GPUS, 20.0, 1, "b20+1"),
        (GPU_NODES, FOR_BOTH, None, 1, "b8+1 c16+1 a4 b8+1 b8+1 b8+1"),
        (GPU_NODES, FOR_BOTH, None, 2, "b16+2 a4 c16 b16+2"),
    ],
)
def test_where_actors_have_room(nodes, kinds, cpus, gpus, expected):
    found = places(nodes, ActorOptions(None, cpus, gpus, None), **kinds)
    assert " ".join(f"{node}{cpus:g}" + (f"+{gpus:g}" if gpus else "") for node, cpus, gpus in found) == expected


def test_more_actors_than_there_is_room_for_wait_for_nodes_that_come_later():
    found = places(CPU_NODES, ActorOptions(None, None, 1, None), **FOR_CPUS)
    assert chosen(found, None, shards=9) == found
    assert chosen(found, 1, shards=9) == found[:1]
    assert chosen(found, 4, shards=9) == [*found, Place(None, 4, 0), Place(None, 4, 0)]
    assert chosen(found, 4, shards=1) == found[:1]
    assert describe([*found, found[0], Place("c", 8, 1)]) == "2 with 8 CPUs, 1 with 4 CPUs, 1 with 8 CPUs and 1 GPUs"


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "sentence"),
    [
        (CPU_NODES, None, 1, "no node of the cluster has 1 GPUs; add one"),
        (GPU_NODES, None, 8, "no node of the cluster has 8 GPUs; add one"),
        (GPU_NODES, 64.0, 1, "--cpus 64: the largest node has 32"),
    ],
)
def test_what_no_node_has_is_refused(nodes, cpus, gpus, sentence):
    with pytest.raises(UsageError, match=sentence):
        places(nodes, ActorOptions(None, cpus, gpus, None), **FOR_GPUS)


@pytest.mark.parametrize(
    ("nodes", "kinds", "actors", "cpus", "expected"),
    [
        (GPU_NODES, FOR_GPUS, None, None, "b28 c15 a4"),
        (GPU_NODES, FOR_GPUS, 1, None, "b31 c16 a4"),
        (GPU_NODES, FOR_GPUS, None, 8.0, "c8 a4"),
        (CPU_NODES, FOR_CPUS, 1, None, "b4"),
        (CPU_NODES, FOR_CPUS, 2, 2.5, "a5.5 b1.5"),
        (CPU_NODES, FOR_CPUS, 2, 3.5, "a4.5"),
    ],
)
def test_decoders_take_the_cpus_that_engines_leave_free(nodes, kinds, actors, cpus, expected):
    """An engine for a GPU then takes but one of them, unless it is told otherwise."""
    options = ActorOptions(actors, cpus, 1, None, decoders=9)
    engines = chosen(places(nodes, options, **kinds), actors, shards=9)
    assert " ".join(f"{node}{cpus:g}" for node, cpus, _ in decoder_places(nodes, engines)) == expected


def test_decoders_without_a_free_cpu_are_refused():
    engines = places(CPU_NODES, ActorOptions(None, None, 1, None, decoders=1), **FOR_CPUS)
    with pytest.raises(UsageError, match="the engines take all CPUs of the cluster; limit them by --actors or --cpus"):
        decoder_places(CPU_NODES, engines)


def test_a_node_keeps_no_more_decoded_shards_than_its_object_store_takes():
    """Two of each actor that decodes there, and one of each engine."""
    engines, decoders = [Place("a", 1, 1)] * 2, [Place("a", 6, 0), Place("b", 8, 0), Place(None, 8, 0)]
    check_room_for_shards({"a": 500, "b": 250, "head": 0}, engines, decoders, 100)
    for stores in ({"a": 499, "b": 250}, {"a": 500, "b": 249}):
        with pytest.raises(UsageError, match=r"start Ray with --object-store-memory (500|250)$"):
            check_room_for_shards(stores, engines, decoders, 100)


class Actor:
    """Takes down what it is told to do, as Ray's handle of an actor does."""

    def __init__(self):
        self.told = []

    def __getattr__(self, method):
        return SimpleNamespace(remote=lambda *arguments: self.told.append((method, *arguments)))


def row(name, engine):
    return ScoredFile(Row(name, None, None, None, None, None, (), "an error", engine))


def test_a_shard_that_goes_to_another_engine_is_scored_again_but_for_what_engines_die_of():
    """Each part has the rows of one engine."""
    names = [SimpleNamespace(name=name) for name in "abc"]
    files = SimpleNamespace(shards=Shards(3, 3), sources=lambda shard: names)
    task, actor = Task(0, files), Actor()
    for _ in range(2):
        task.submit(actor, "one")
        task.failed("it died")
    task.submit(actor, "one")
    task.done(row("a", "one"))
    for _ in range(2):
        task.submit(actor, "one")
        task.failed("it died")
    assert actor.told == [("score", 0)] * 2 + [("score_file", 0, 0)] + [("score_file", 0, 1)] * 2
    for number in (0, 2):
        task.submit(actor, "two")
        assert actor.told[-1] == ("score_file", 0, number)
        task.done(row("abc"[number], "two"))
    task.submit(actor, "two")
    (method, shard, scored) = actor.told[-1]
    assert (method, shard) == ("write", 0)
    assert [(one.row.path, one.row.engine) for one in scored] == [("a", "two"), ("b", "two"), ("c", "two")]
    assert scored[1].row.error == "the engine failed on this file: it died; try it on another backend"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("score", ".", "-o", "a.csv", "--ray", "auto"), "--ray is for a list of files"),
        (("score", ".", "-o", "a.csv", "--cpus", "2"), "--actors, --cpus, --gpus or --decoders is for a list of files"),
        (("score", ".", "-o", "a.csv", "--decoders", "2"), "--gpus or --decoders is for a list of files"),
        (("score", "list", "-o", "parts", "--actors", "2"), "are about a Ray cluster; add --ray"),
        (("score", "list", "-o", "parts", "--decoders", "2"), "are about a Ray cluster; add --ray"),
        (("score", "list", "-o", "parts", "--ray", "auto"), "--ray: which engine? Name one with --engine"),
        (("score", "list", "-o", "parts", "-e", "a.cxr", "-e", "b.cxr"), "several engines are for the nodes of a Ray"),
        (("score", "a.png", "-e", "a.cxr", "-e", "b.cxr"), "several engines are for the nodes of a Ray cluster"),
    ],
)
def test_mistakes_are_one_sentence(cli, tmp_path, cheap_bundle, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    assert cli("list", "a.png", "-o", "list").exit_code == 0
    result = cli(*arguments)
    assert (result.exit_code, sentence in result.stderr) == (2, True), result.stderr


def test_without_the_extra_the_command_says_how_to_install_it_and_no_other_needs_it(tmp_path, cheap_bundle):
    (tmp_path / "a.png").write_bytes(b"")
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from cxr_trt.cli import main\n"
        "for words in (['list', 'a.png', '-o', 'list'], ['score', 'list', '-o', 'parts'], sys.argv[1:]):\n"
        "    try:\n"
        "        main(words)\n"
        "    except SystemExit as end:\n"
        "        print(end.code)\n"
    )
    command = [sys.executable, "-c", code, "score", "list", "-o", "other", "--ray", "auto", "-e", str(cheap_bundle)]
    environment = {"CXR_TRT_ENGINE": str(cheap_bundle)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "2", "2"], done.stderr
    assert "--ray needs Ray; pip install 'cxr-trt[ray]'" in done.stderr


def test_a_bundle_is_fetched_once_and_again_if_it_is_damaged(cheap_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_TRT_CACHE", str(tmp_path))
    files, fetched = read_bundle(cheap_bundle), []

    def fetch():
        fetched.append(1)
        return files

    for _ in range(2):
        with open_cached(bundle_key(files), "mine.cxr", fetch) as engine:
            fingerprint = engine.fingerprint
    assert len(fetched) == 1
    (bundle,) = (tmp_path / "bundles").iterdir()
    (bundle / "engine.onnx").write_bytes(b"damaged")
    with open_cached(bundle_key(files), "mine.cxr", fetch) as engine:
        assert (engine.fingerprint, len(fetched)) == (fingerprint, 2)
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == [f"{bundle_key(files)}.cxr"]
    assert bundle_key({**files, "calibration.json": b"{}"}) != bundle_key(files)


def test_a_bundle_that_cannot_be_opened_here_has_its_name_and_is_fetched_once(cheap_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_TRT_CACHE", str(tmp_path))
    later = replace(read_manifest(cheap_bundle), backend_version="99.0")
    files, fetched = {**read_bundle(cheap_bundle), MANIFEST_FILE: later.to_json().encode()}, []

    def fetch():
        fetched.append(1)
        return files

    for _ in range(2):
        with pytest.raises(BundleError, match=r"^mine.cxr: built with onnxruntime 99.0, but .* build-engine mine.cxr "):
            open_cached(bundle_key(files), "mine.cxr", fetch)
    assert len(fetched) == 1


def test_engines_of_different_networks_are_not_for_one_run(cheap_bundle, tmp_path):
    paths = [cheap_bundle, build_cheap_bundle(tmp_path / "other.cxr", views="ten-crop")]
    with pytest.raises(UsageError, match=r"other.cxr: engines of different networks, or with other views"):
        node_bundles(paths, [read_manifest(path) for path in paths])
    alike = [cheap_bundle, build_cheap_bundle(tmp_path / "openvino.cxr", backend="openvino")]
    found = node_bundles(alike, [read_manifest(path) for path in alike])
    assert [one.on_gpu for one in found] == [False, False]
    assert found[0].fingerprint != found[1].fingerprint


def test_processes_of_a_node_may_fetch_a_bundle_at_once(cheap_bundle, tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cxr_trt.cluster.bundles import bundle_key, open_cached, read_bundle\n"
        "files = read_bundle(Path(sys.argv[1]))\n"
        "sys.stdin.read()\n"
        "for _ in range(3):\n"
        "    open_cached(bundle_key(files), 'mine.cxr', lambda: files).close()\n"
    )
    environment = {"CXR_TRT_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", code, str(cheap_bundle)]
    processes = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)
    ]
    for process in processes:
        process.stdin.close()
        process.stdin = None
    assert [(process.communicate()[1], process.returncode) for process in processes] == [(b"", 0)] * 3
    assert len(list((tmp_path / "bundles").iterdir())) == 1
