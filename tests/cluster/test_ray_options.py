"""What can be said of a Ray cluster without one; and that nothing but --ray imports Ray."""

import subprocess
import sys

import pytest

from cxr_trt.cluster.actors import ActorOptions, room
from cxr_trt.cluster.bundles import bundle_key, open_cached, read_bundle
from cxr_trt.errors import UsageError

CPU_NODES = [{"CPU": 0.0}, {"CPU": 8.0}, {"CPU": 4.0}]
GPU_NODES = [{"CPU": 4.0}, {"CPU": 32.0, "GPU": 4.0}, {"CPU": 16.0, "GPU": 1.0}]


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "on_gpu", "expected"),
    [
        (CPU_NODES, None, 1, False, (4, 3)),
        (CPU_NODES, 8.0, 1, False, (8, 1)),
        (CPU_NODES, 2.0, 1, False, (2, 6)),
        (GPU_NODES, None, 1, True, (8, 5)),
        (GPU_NODES, None, 2, True, (16, 2)),
        (GPU_NODES, None, 0.5, True, (4, 10)),
        (GPU_NODES, 20.0, 1, True, (20, 1)),
    ],
)
def test_actors_that_the_nodes_have_room_for(nodes, cpus, gpus, on_gpu, expected):
    assert room(nodes, ActorOptions(None, cpus, gpus, None), on_gpu=on_gpu) == expected


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
        room(nodes, ActorOptions(None, cpus, gpus, None), on_gpu=True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("score", ".", "-o", "a.csv", "--ray", "auto"), "--ray is for a list of files"),
        (("score", ".", "-o", "a.csv", "--cpus", "2"), "--actors, --cpus or --gpus is for a list of files"),
        (("score", "list", "-o", "parts", "--actors", "2"), "are about a Ray cluster; add --ray"),
        (("score", "list", "-o", "parts", "--ray", "auto"), "--ray: which engine? Name one with --engine"),
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
        with open_cached(bundle_key(files), fetch) as engine:
            fingerprint = engine.fingerprint
    assert len(fetched) == 1
    (bundle,) = (tmp_path / "bundles").iterdir()
    (bundle / "engine.onnx").write_bytes(b"damaged")
    with open_cached(bundle_key(files), fetch) as engine:
        assert (engine.fingerprint, len(fetched)) == (fingerprint, 2)
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == [f"{bundle_key(files)}.cxr"]
    assert bundle_key({**files, "calibration.json": b"{}"}) != bundle_key(files)


def test_processes_of_a_node_may_fetch_a_bundle_at_once(cheap_bundle, tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cxr_trt.cluster.bundles import bundle_key, open_cached, read_bundle\n"
        "files = read_bundle(Path(sys.argv[1]))\n"
        "sys.stdin.read()\n"
        "for _ in range(3):\n"
        "    open_cached(bundle_key(files), lambda: files).close()\n"
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
